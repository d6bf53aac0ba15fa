"""docs/licences.md lists every shipped file that is not our code or text, with its licence."""

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
    """Patterns and licence of each row of the first table."""
    text = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    section = text.split("## Shipped", 1)[1].split("\n## ", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if "| `" in line]
    return [(re.findall(r"`([^`]+)`", row[0]), row[-1]) for row in cells]


def shipped() -> list[str]:
    files = [path for folder in SHIPPED for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(ROOT) for path in files if path.suffix not in (".py", ".pyc", ".md", ".typed")]
    return sorted(path.as_posix() for path in names if not any(part.startswith((".", "__")) for part in path.parts))


def test_the_table_lists_every_shipped_file_with_an_open_licence() -> None:
    files, listed = shipped(), rows()
    patterns = [pattern for row, _ in listed for pattern in row]
    assert [name for name in files if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not fnmatch.filter(files, pattern)] == []
    assert [row for row, licence in listed if not any(known in licence for known in OPEN)] == []
