"""Everything that these tests take from the project: what moves is changed here and nowhere else.

Most of it is public (docs/architecture.md). What is not, stands at the end.
"""

from pathlib import Path

import pytest

from i2l_meshnet.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

LAB_COMMANDS = ("lift", "lift-hand", "synthesize")
lab_main = main
"""The command line that knows `LAB_COMMANDS`."""
GONE_COMMANDS: tuple[str, ...] = ()
"""Commands that were and are no more."""


def meshnet(*arguments: object) -> None:
    """Runs a command, which must succeed."""
    given = [str(argument) for argument in arguments]
    code = (lab_main if given[0] in LAB_COMMANDS else main)(given)
    assert code == 0, f"{' '.join(given)} ended with exit code {code}"


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints with --help."""
    words = command.split()
    with pytest.raises(SystemExit) as leaving:
        (lab_main if words[:1] and words[0] in LAB_COMMANDS else main)([*words, "--help"])
    assert leaving.value.code == 0
    return capsys.readouterr().out
