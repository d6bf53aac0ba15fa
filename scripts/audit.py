"""Known vulnerabilities of the packages in constraints.txt, by pip-audit: `python scripts/audit.py` (`make audit`).

Advisory: it prints what it finds and always ends with code 0, for what it tells is mostly of parts that are not used
here, and its service may be out of reach. pip-audit is installed into a folder of its own, which goes again.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP_AUDIT = "pip-audit==2.10.1"
SECONDS = 300


def audit(folder: Path) -> str:
    """What pip-audit tells, one line for each vulnerability."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", PIP_AUDIT], check=True, capture_output=True, text=True)
    options = ["--requirement", ROOT / "constraints.txt", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    command = [python, "-m", "pip_audit", *options, "--format", "json", "--timeout", "10"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if not found.stdout.strip():
        return f"pip-audit could not do its work: {(found.stderr.strip().splitlines() or ['no word'])[-1][:200]}"
    packages = json.loads(found.stdout)["dependencies"]
    lines = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
    reasons = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if len(reasons) == len(packages):
        return f"pip-audit could not ask its service: {str(reasons[:1])[:200]}"
    counts = f"{len(packages)} packages, {len(lines)} known vulnerabilities, {len(reasons)} not known to its service"
    return "\n".join([*lines, counts])


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(audit(Path(folder)))
    except subprocess.CalledProcessError as error:
        print(f"pip-audit could not be installed: {(error.stderr.strip().splitlines() or ['no word'])[-1][:200]}")
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        print(f"pip-audit could not do its work: {str(error).splitlines()[0][:200]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
