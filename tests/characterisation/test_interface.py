"""The interface: options of every command, names of the Python package. Wording is free."""

import importlib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from surfaces import LAB_COMMANDS, MOVED_MODULES, PRODUCT, ROOT, help_of

import i2l_meshnet


def options(text: str) -> dict[str, list[str]]:
    """Options and positionals of a help text: name → type, and default or "required"."""
    found: dict[str, list[str]] = {}
    entries: list[list[str]] = []
    for line in text.replace("│", " ").splitlines():
        # The following lines of an entry are indented further.
        if start := re.match(r" {2}(-{1,2}[a-z].*|[A-Z]{2,}.*|[\[{].*)", line):
            entries.append([start[1].strip()])
        elif entries and line.startswith("   "):
            entries[-1].append(line.strip())
    for first, *more in entries:
        given, _, text = first.partition("  ")
        ending = re.search(r"\((?:default: (.*?)|(required)|repeatable)\)$", " ".join([text.strip(), *more]).strip())
        if ending is None or given == "-h, --help":
            continue
        names = re.findall(r"(?:^|, )(-{1,2}[a-z][\w.-]*)", given) if given.startswith("-") else [given]
        kind = given.partition(names[-1])[2].strip()
        found[" ".join(sorted(names))] = [kind, ending[2] or ending[1] or ""]
    return found


def subcommands(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Name → options, of a command and its subcommands."""
    text = help_of(command, capsys)
    below = re.search(r"\[-h\][^\n]*? \{([\w,-]+)\}\s*$", text.split("\n\n")[0])
    found = {command: options(text)}
    for name in below[1].split(",") if below else ():
        found |= subcommands(f"{command} {name}".strip(), capsys)
    return found


def test_options_of_all_commands(
    compare: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, types and defaults in --help."""
    monkeypatch.setenv("COLUMNS", "120")
    found: dict[str, Any] = {}
    for command in sorted({*PRODUCT.names, *LAB_COMMANDS}):
        found |= subcommands(command, capsys)
    assert len(found["predict"]) > 30
    assert found["predict"]["--fov"] == ["{None}|FLOAT", "None"]
    compare("options", found, [])


def signature(value: Any) -> Any:
    """Names and plain defaults of the parameters of a function or class, and the public members of a class."""
    try:
        given = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        given = ()
    taken = []
    for parameter in given:
        shown = isinstance(parameter.default, bool | int | float | str | tuple | None)
        taken.append(f"{parameter.name}={parameter.default!r}" if shown else parameter.name)
    if not inspect.isclass(value):
        return taken
    inherited = {name for base in value.__mro__ if not base.__module__.startswith("i2l") for name in vars(base)}
    members = sorted(name for name in dir(value) if not name.startswith("_") and name not in inherited)
    return {"takes": taken, "members": members}


def test_public_names(compare: Callable[..., None]) -> None:
    assert sorted(i2l_meshnet.__all__) == [*i2l_meshnet.__all__]
    compare("public_names", {name: signature(getattr(i2l_meshnet, name)) for name in i2l_meshnet.__all__}, [])


def documented() -> list[str]:
    """`module:name` of everything that README, docs and notebooks import from the project."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    found = set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for module, names in re.findall(r"^[ >]*from (i2l_meshnet[\w.]*) import \(?([\w, \n]+)", text, re.MULTILINE):
            first = (
                names if "(" in text[text.find(f"from {module} import") :][: len(module) + 14] else names.split("\n")[0]
            )
            found |= {f"{module}:{name.strip().split(' ')[0]}" for name in first.split(",") if name.strip()}
        found |= {":".join(pair) for pair in re.findall(r"`(i2l_meshnet[\w.]*)\.(\w+)\(", text)}
    return sorted(found)


def test_what_the_docs_import_is_there(compare: Callable[..., None], remake: bool) -> None:
    """Names that the docs import now, or imported when the golden file was made, can be imported."""
    if remake:
        compare("documented_names", documented(), [])
    kept = json.loads((Path(__file__).parent / "goldens" / "documented_names.json").read_text())["result"]
    assert len(kept) > 3
    for entry in {*kept, *documented()}:
        module, _, name = entry.partition(":")
        assert hasattr(importlib.import_module(MOVED_MODULES.get(module, module)), name), entry
