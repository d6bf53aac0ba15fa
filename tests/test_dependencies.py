"""docs/dependencies.md names every direct dependency."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_direct_dependency_has_a_row_with_upkeep_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    direct = {re.split(r"[\[<>=~! ;]", text, maxsplit=1)[0] for texts in groups for text in texts} - {project["name"]}
    lines = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    named = {row[0]: row for row in rows if row[0] != "package"}
    assert {*named} == direct
    for name, (_, purpose, upkeep, licence, *_) in named.items():
        assert all((purpose, upkeep, licence)), name
