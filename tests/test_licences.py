"""Every shipped file that is no code or text of ours is named, with its licence, in docs/licences.md."""

import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIPPED = (
    "src/i2l_meshnet",
    "examples",
    "docs/images",
    "notebooks",
    "tests/goldens",
    "tests/regression",
    "tests/characterisation",
)
OPEN = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0", "RTMPose: see below")


def rows() -> list[tuple[list[str], str]]:
    """Patterns and licence of each row of the table of what is shipped."""
    text = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    section = text.split("## Shipped", 1)[1].split("\n## ", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if "| `" in line]
    return [(re.findall(r"`([^`]+)`", row[0]), row[-1]) for row in cells]


def shipped() -> list[str]:
    files = [path for folder in SHIPPED for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(ROOT) for path in files if path.suffix not in (".py", ".pyc", ".md", ".typed")]
    return sorted(path.as_posix() for path in names if not any(part.startswith((".", "__")) for part in path.parts))


def test_every_shipped_file_has_a_row() -> None:
    patterns = [pattern for row, _ in rows() for pattern in row]
    files = shipped()
    assert len(files) > 20
    nameless = [name for name in files if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    assert nameless == [], "name these in the first table of docs/licences.md"


def test_every_row_names_files_that_are_there_and_an_open_licence() -> None:
    files = shipped()
    for patterns, licence in rows():
        assert any(known in licence for known in OPEN), (patterns, licence)
        for pattern in patterns:
            assert any(fnmatch.fnmatchcase(name, pattern) for name in files), f"{pattern} names nothing that is shipped"
