"""Prints a table of the direct dependencies in pyproject.toml that are installed: version, licence, size on disk.

    python scripts/measure_dependencies.py

"own" is the size of the package's own files; "with all it brings" adds everything that it needs and that is neither
a direct dependency itself nor brought by one above it in the table. Megabytes are millions of bytes.
"""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def size(name: str) -> int:
    files = metadata.distribution(name).files or []
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())


def closure(requirement: Requirement, seen: set[str]) -> set[str]:
    """Names of what is installed for a requirement, itself included, without what is `seen` (which grows)."""
    name = canonicalize_name(requirement.name)
    try:
        needs = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return set()
    found = set() if name in seen else {name}
    seen.add(name)
    for text in needs:
        need = Requirement(text)
        extras = requirement.extras or {""}
        wanted = need.marker is None or any(
            need.marker.evaluate({**default_environment(), "extra": extra}) for extra in extras
        )
        if wanted and canonicalize_name(need.name) not in seen:
            found |= closure(need, seen)
    return found


def licence(name: str) -> str:
    told = metadata.metadata(name)
    classifiers = [line.split(" :: ")[-1] for line in told.get_all("Classifier", []) if line.startswith("License ::")]
    short = told.get("License-Expression") or ", ".join(classifiers) or told.get("License") or "?"
    return short.splitlines()[0][:60]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    direct = {canonicalize_name(Requirement(text).name) for texts in groups.values() for text in texts}
    seen: set[str] = set()
    print("| extra | package | version | licence | own, MB | with all it brings, MB |")
    print("|---|---|---|---|---|---|")
    for extra, requirements in groups.items():
        for requirement in map(Requirement, requirements):
            name = canonicalize_name(requirement.name)
            if name == canonicalize_name(project["name"]):
                continue
            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                print(f"| {extra} | {name} | not installed | | | |")
                continue
            needed = closure(requirement, (seen | direct) - {name})
            seen |= needed
            brought = sum(size(other) for other in needed)
            print(f"| {extra} | {name} | {version} | {licence(name)} | {size(name) / 1e6:.1f} | {brought / 1e6:.1f} |")


if __name__ == "__main__":
    main()
