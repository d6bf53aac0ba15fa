"""List known vulnerabilities of the packages in constraints.txt with pip-audit (`make audit`).

Always exits with 0: most reports concern parts of packages that are not used here, and the service may be unreachable.
pip-audit is installed into a temporary folder.
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
    """One line for each vulnerability that pip-audit reports, and a summary."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", PIP_AUDIT], check=True, capture_output=True, text=True)
    options = ["--requirement", ROOT / "constraints.txt", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    command = [python, "-m", "pip_audit", *options, "--format", "json", "--timeout", "10"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if not found.stdout.strip():
        return f"pip-audit failed: {last_line(found.stderr)}"
    packages = json.loads(found.stdout)["dependencies"]
    lines = [
        f"{package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
    reasons = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if len(reasons) == len(packages):
        return f"pip-audit could not reach its service: {str(reasons[:1])[:200]}"
    counts = f"{len(packages)} packages, {len(lines)} known vulnerabilities, {len(reasons)} unknown to its service"
    return "\n".join([*lines, counts])


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:200]


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(audit(Path(folder)))
    except subprocess.CalledProcessError as error:
        print(f"pip-audit could not be installed: {last_line(error.stderr)}")
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        print(f"pip-audit failed: {last_line(str(error))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
