"""Every `i2l-meshnet …`, `i2l-lab …` and `python benchmarks/run.py …` line of README and docs is understood."""

import functools
import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import run as benchmark
from i2l_lab.cli import LAB
from i2l_meshnet.cli import PRODUCT, CommandLine
from i2l_meshnet.errors import UserError

ROOT = Path(__file__).parents[1]
HISTORY = "CHANGELOG.md"
"""Names commands as they were then."""
PAGES = [
    *(page for page in ROOT.glob("*.md") if page.name != HISTORY),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "benchmarks" / "README.md",
]
STAND_FOR = {"NAME": "PW3D", "RECIPE": "tiny"}
"""Placeholders in the docs → one of the names that the user may put there."""
PROGRAMS = {"i2l-meshnet": PRODUCT, "i2l-lab": LAB}
BENCHMARK = "python benchmarks/run.py"
START = rf"(?:{'|'.join(PROGRAMS)}|{BENCHMARK})"


def commands() -> list[str]:
    """Lines of code blocks and code in running text, without comments, pipes and redirections."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(rf"^ *(?:\$ )?(?:[A-Z_]+=\S+ )*({START} .+)$", text, re.MULTILINE)
        inline = re.findall(rf"`(?:[A-Z_]+=\S+ )*({START}\s[^`]+)`", text)
        for line in itertools.chain(lines, inline):
            line = re.split(r"\s#|\s{3,}\S| > | \| |`", line.replace("\n", " "))[0].strip()
            if not re.search(r"<Tab>|…|\.\.\.", line):
                found[" ".join(STAND_FOR.get(word, word) for word in line.split(" "))] = None
    return [*found]


@pytest.fixture(scope="module")
def parsed() -> dict[str, Callable]:
    """The commands of both programs, which do nothing but parse their options."""

    def idle(command: Callable) -> Callable:
        return functools.wraps(command)(lambda *given, **named: 0)

    return {name: idle(program.command(name)) for program in PROGRAMS.values() for name in program.names}


@pytest.fixture
def idle(parsed: dict[str, Callable], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the commands do nothing."""
    monkeypatch.setattr(CommandLine, "command", lambda program, name: parsed[name])
    monkeypatch.setattr(benchmark, "run", lambda options: 0)
    monkeypatch.setattr("i2l_meshnet.video.predict.require_usd", lambda: None)  # an extra


def test_there_are_such_lines() -> None:
    lines = commands()
    assert len(lines) > 60
    assert "i2l-meshnet predict photo.jpg holiday/ --out results" in lines
    assert any(line.startswith("i2l-lab lift --bank") for line in lines)
    assert f"{BENCHMARK} --quick" in lines


@pytest.mark.usefixtures("idle")
def test_the_check_finds_flags_that_are_gone() -> None:
    for wrong in ("predict photo.jpg --no-such-flag", "nothing --out results", "predict --score"):
        with pytest.raises(SystemExit) as caught:
            PRODUCT.run(shlex.split(wrong))
        assert caught.value.code == 2


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("line", commands())
def test_the_command_knows_the_line(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = shlex.split(line.replace(BENCHMARK, "benchmark"))
    if program == "benchmark":
        monkeypatch.chdir(ROOT)  # it names files of the checkout
        assert benchmark.main(arguments) == 0, capsys.readouterr().err
        return
    if all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", word) for word in arguments):
        # A name in running text: its help shows that it is there.
        arguments.append("--help")
    try:
        code = PROGRAMS[program].run(arguments)
    except SystemExit as leaving:
        code = leaving.code
    except UserError as error:
        pytest.fail(f"{line}: {error}")
    assert code == 0, f"{line}: {capsys.readouterr().err[-600:]}"
