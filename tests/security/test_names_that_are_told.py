"""Names of files and folders are printed as they are: no terminal codes, no markup of Rich's."""

from pathlib import Path

import pytest

from i2l_meshnet.data.check import CheckOptions
from i2l_meshnet.data.check import run as check
from i2l_meshnet.errors import UserError, printable

NAME = "a[/red]\x1b[2J\n[bold]b"
SHOWN = r"a[/red]\x1b[2J\n[bold]b"


def test_what_does_not_print_is_spelled_out() -> None:
    assert printable(NAME) == SHOWN
    assert str(UserError(NAME)) == SHOWN
    assert printable("härte 日本") == "härte 日本"


def test_a_folder_of_data_may_be_called_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    assert check(CheckOptions("PW3D", root=folder, out=tmp_path)) == 1
    said = capsys.readouterr().out
    assert SHOWN in said
    assert "\x1b" not in said
