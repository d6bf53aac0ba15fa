"""What no source file may do: run what it read, or read what could run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CALLS = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "runs text",
    "os.system": "runs a command by the shell",
    "os.popen": "runs a command by the shell",
    "yaml.load": "builds any object: yaml.safe_load",
    "pickle.load": "builds any object: bodies/files.py knows how to read pickles",
    "pickle.loads": "builds any object: bodies/files.py knows how to read pickles",
    "joblib.load": "unpickles",
    "pandas.read_pickle": "unpickles",
    "torch.jit.load": "runs the program in a file",
    "scipy.io.loadmat": "is ended by broken files: data/convert/matlab.py",
    "shelve.open": "unpickles",
    "marshal.loads": "builds code",
    "tempfile.mktemp": "names a file that another process may make",
}
"""Dotted calls that are forbidden everywhere, and why."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The dotted name of everything that a file calls, imported names spelled out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield names.get(first, first) + dot + rest, node


def option(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


def faults(path: Path) -> list[str]:
    """What a file does against the rules, by line."""
    found = []
    for name, call in calls(path):
        place = f"{path.name}:{call.lineno}: {name}"
        if name in CALLS:
            found.append(f"{place} {CALLS[name]}")
        if option(call, "shell") not in (None, "False"):
            found.append(f"{place} with a shell")
        if name == "torch.load" and option(call, "weights_only") != "True":
            found.append(f"{place} without weights_only=True")
        if name.startswith("torch.hub.load_state_dict") and option(call, "weights_only") != "True":
            found.append(f"{place} without weights_only=True")
        if option(call, "allow_pickle") not in (None, "False"):
            found.append(f"{place} with pickles")
        if name.endswith((".extractall", "tarfile.open.extract")) and option(call, "filter") != "'data'":
            found.append(f"{place} without filter='data'")
        if name == "cv2.VideoCapture" and path.name != "webcam.py":
            found.append(f"{place} opens what a playlist names: untrusted.open_video")
        if option(call, "trust_remote_code") not in (None, "False"):
            found.append(f"{place} trusts remote code")
    return found


def test_the_sources_keep_the_rules() -> None:
    assert len(SOURCES) > 100
    assert [fault for path in SOURCES for fault in faults(path)] == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import torch\ntorch.load('x')", "weights_only"),
        ("from torch import load\nload('x', weights_only=False)", "weights_only"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "pickles"),
        ("import subprocess as s\ns.run('ls', shell=True)", "shell"),
        ("import os\nos.system('ls')", "shell"),
        ("eval('1')", "runs text"),
        ("from pickle import loads as l\nl(b'')", "builds any object"),
        ("import yaml\nyaml.load('x')", "safe_load"),
        ("import cv2\ncv2.VideoCapture('x')", "playlist"),
        ("import tarfile\ntarfile.open('x').extractall()", "filter"),
    ],
)
def test_the_rules_see_what_breaks_them(tmp_path: Path, source: str, fault: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(source)
    (found,) = faults(path)
    assert fault in found


def test_pickles_are_read_in_one_place_only() -> None:
    users = [path.name for path in SOURCES if "pickle" in {name.split(".")[0] for name, _ in calls(path)} - {"torch"}]
    assert users in ([], ["files.py"])
    readers = [path for path in SOURCES if "Unpickler" in path.read_text(encoding="utf-8")]
    assert [path.relative_to(ROOT).as_posix() for path in readers] == ["src/i2l_meshnet/bodies/files.py"]


READ_METHODS = {"read_text", "read_bytes", "imread", "fromfile", "genfromtxt", "loadtxt"}
OPENED = {
    "files.py": "opens regular files, for all others",
    "untrusted.py": "checks a path by `require_regular` where a library opens it by name",
    "assets.py": "archives and files that were fetched and checked just before",
    "bodies/anny.py": "a file of the package",
    "exporting/graph.py": "a file in its own temporary folder",
    "fleet/table.py": "files of object stores",
    "installation.py": "the kernel's files",
    "serving/answers.py": "uploads and results in the server's own folder",
    "serving/app.py": "writes uploads into the server's own folder",
    "serving/job.py": "locks of the server's own folders, links not followed",
    "video/encode.py": "pieces in a work folder",
    "video/work.py": "facts in a work folder",
    "cli.py": "the null device",
}
"""Modules that open files to read without `files.open_regular` and `untrusted`, and why they may."""


def opens(path: Path) -> list[int]:
    """Lines in which a file is opened for reading, other than by our own functions."""
    found = []
    for name, call in calls(path):
        last = name.rpartition(".")[2]
        modes = [value.value for value in call.args[:2] if isinstance(value, ast.Constant)]
        writing = any(isinstance(mode, str) and len(mode) <= 4 and set(mode) & set("wax+") for mode in modes)
        method = isinstance(call.func, ast.Attribute)
        if (method and last in READ_METHODS) or (last == "open" and not writing) or name.endswith("ElementTree.parse"):
            found.append(call.lineno)
    return found


def test_every_reader_opens_regular_files_only() -> None:
    # Tools of the lab are run by hand in a checkout.
    sources = {
        "/".join(path.relative_to(ROOT / "src").parts[1:]): path for path in SOURCES if "tools" not in path.parts
    }
    found = {module: lines for module, path in sources.items() if (lines := opens(path))}
    strange = {module: lines for module, lines in found.items() if module not in OPENED}
    assert strange == {}, "open these by files.open_regular or untrusted, or give a reason in OPENED"
    assert found.keys() == OPENED.keys(), "nothing is opened there any more: remove it from OPENED"
