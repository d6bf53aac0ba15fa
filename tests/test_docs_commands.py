"""Every `i2l-meshnet …` line of README and docs is one that the command understands."""

import functools
import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from i2l_meshnet import cli
from i2l_meshnet.errors import UserError

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
STAND_FOR = {"NAME": "PW3D", "RECIPE": "tiny"}
"""Words of docs in place of which the user puts one of a fixed set."""


def commands() -> list[str]:
    """Lines of code blocks and code in running text; what is a comment, a pipe or a redirection left out."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"^ *(?:\$ )?(?:[A-Z_]+=\S+ )*(i2l-meshnet .+)$", text, re.MULTILINE)
        inline = re.findall(r"`(?:[A-Z_]+=\S+ )*(i2l-meshnet\s[^`]+)`", text)
        for line in itertools.chain(lines, inline):
            line = re.split(r"\s#|\s{3,}\S| > | \| |`", line.replace("\n", " "))[0].strip()
            if not re.search(r"<Tab>|…|\.\.\.", line):
                found[" ".join(STAND_FOR.get(word, word) for word in line.split(" "))] = None
    return [*found]


@pytest.fixture(scope="module")
def parsed() -> dict[str, Callable]:
    """The commands, which do nothing but take their options."""

    def idle(command: Callable) -> Callable:
        return functools.wraps(command)(lambda *given, **named: 0)

    return {name: idle(cli.PRODUCT.command(name)) for name in cli.PRODUCT.names}


def test_there_are_such_lines() -> None:
    lines = commands()
    assert len(lines) > 60
    assert "i2l-meshnet predict photo.jpg holiday/ --out results" in lines


def test_the_check_finds_flags_that_are_gone(parsed: dict[str, Callable], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.CommandLine, "command", lambda line, name: parsed[name])
    for wrong in ("predict photo.jpg --no-such-flag", "nothing --out results", "predict --score"):
        with pytest.raises(SystemExit) as caught:
            cli.PRODUCT.run(shlex.split(wrong))
        assert caught.value.code == 2


@pytest.mark.parametrize("line", commands())
def test_the_command_knows_the_line(
    line: str, parsed: dict[str, Callable], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.CommandLine, "command", lambda line, name: parsed[name])
    monkeypatch.setattr("i2l_meshnet.video.job.require_usd", lambda: None)  # an extra
    arguments = shlex.split(line)[1:]
    if all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", word) for word in arguments):
        # A name in running text: its help shows that it is there.
        arguments.append("--help")
    try:
        code = cli.PRODUCT.run(arguments)
    except SystemExit as leaving:
        code = leaving.code
    except UserError as error:
        pytest.fail(f"{line}: {error}")
    assert code == 0, f"{line}: {capsys.readouterr().err[-600:]}"
