"""README and docs contain only valid `i2l-meshnet …`, `i2l-lab …` and `python benchmarks/run.py …` commands."""

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
PAGES = [
    *(page for page in ROOT.glob("*.md") if page.name != "CHANGELOG.md"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "benchmarks" / "README.md",
]
STAND_FOR = {"NAME": "PW3D", "RECIPE": "tiny"}
"""Placeholders in the docs → a valid value."""
PROGRAMS = {"i2l-meshnet": PRODUCT, "i2l-lab": LAB}
BENCHMARK = "python benchmarks/run.py"
START = rf"(?:{'|'.join(PROGRAMS)}|{BENCHMARK})"


def commands() -> list[str]:
    """Commands in code blocks and in running text, without comments, pipes and redirections."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        lines = re.findall(rf"^ *(?:\$ )?(?:[A-Z_]+=\S+ )*({START} .+)$", text, re.MULTILINE)
        inline = re.findall(rf"`(?:[A-Z_]+=\S+ )*({START}\s[^`]+)`", text)
        for line in itertools.chain(lines, inline):
            line = re.split(r"\s#|\s{3,}\S| > | \| |`", line.replace("\n", " "))[0].strip()
            if not re.search(r"<Tab>|…|\.\.\.", line):
                found[" ".join(STAND_FOR.get(word, word) for word in line.split(" "))] = None
    return [*found]


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands parse their options and do nothing. Recipe files exist."""
    command = CommandLine.command

    def parse_only(program: CommandLine, name: str) -> Callable:
        return functools.wraps(command(program, name))(lambda *given, **named: 0)

    monkeypatch.setattr(CommandLine, "command", parse_only)
    monkeypatch.setattr("i2l_meshnet.training.train.run", lambda options: 0)
    monkeypatch.chdir(tmp_path)
    for name in ("mine.toml", "FILE.toml"):
        (tmp_path / name).write_text("name = 'tiny'")
    monkeypatch.setattr(benchmark, "run", lambda options: 0)
    monkeypatch.setattr("i2l_meshnet.video.predict.require_usd", lambda: None)  # an extra


def test_commands_are_found_and_wrong_ones_fail() -> None:
    assert {"i2l-meshnet predict photo.jpg holiday/ --out results", f"{BENCHMARK} --quick"} < {*commands()}
    for wrong in ("predict photo.jpg --no-such-flag", "nothing --out results", "predict --score"):
        with pytest.raises(SystemExit) as caught:
            PRODUCT.run(shlex.split(wrong))
        assert caught.value.code == 2


@pytest.mark.parametrize("line", commands())
def test_the_command_is_valid(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(line.replace(BENCHMARK, "benchmark"))
    if program == "benchmark":
        monkeypatch.chdir(ROOT)  # paths in the checkout
        assert benchmark.main(arguments) == 0, capsys.readouterr().err
        return
    if all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", word) for word in arguments):
        # The name of a command in running text.
        arguments.append("--help")
    try:
        code = PROGRAMS[program].run(arguments)
    except SystemExit as leaving:
        code = leaving.code
    except UserError as error:
        pytest.fail(f"{line}: {error}")
    assert code == 0, f"{line}: {capsys.readouterr().err[-600:]}"
