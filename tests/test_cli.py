import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_lab.cli import LAB
from i2l_meshnet import assets, cli


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path))


def test_assets_are_listed_with_size_and_licence(capsys, empty_cache):
    assert cli.main(["assets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(assets.ASSETS)
    assert any(line.startswith("detector") and "45 MB" in line and "Apache-2.0" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["assets", "detectr"], "detectr"),
        (["assets", "--imagenet", "weights.bin"], "weights.bin"),
        (["convert", "snapshot.pth.tar", "out.bin"], "out.bin"),
        (["convert", "missing.pth.tar", "out.safetensors"], "missing.pth.tar"),
        (["predict", "no-such-picture.jpg"], "no-such-picture.jpg"),
        (["evaluate", "--data", "PW3D", "--batch-size", "0"], "--batch-size"),
        (["bench", "--quick"], "python benchmarks/run.py"),
        (["lift-hand", "--help"], "i2l-lab lift-hand"),
        (["export", "--int8"], "--int8"),
    ],
)
def test_errors_that_users_can_fix_are_one_line_and_exit_code_1(arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert named in error
    assert error.startswith("i2l-meshnet: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_info_reports_versions_bodies_and_assets(capsys, empty_cache, monkeypatch):
    monkeypatch.delenv("I2L_MESHNET_BODIES", raising=False)
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    # The version of the package may lack "+cu130".
    versions = (f"torch {torch.__version__.partition('+')[0]}", f"numpy {np.__version__}", platform.python_version())
    for expected in (*versions, "default.safetensors: keypoint for anny", "1229 vertices", str(assets.cache_folder())):
        assert expected in out


def subcommands(capsys, program: cli.CommandLine, command: str) -> list[str]:
    """A command and its subcommands, from their help texts."""
    with pytest.raises(SystemExit) as leaving:
        program.main([*command.split(), "--help"])
    assert leaving.value.code == 0
    usage = capsys.readouterr().out.split("\n\n")[0]
    below = re.search(r"\[-h\] \{([\w,-]+)\}", usage)
    names = [f"{command} {name}".strip() for name in below[1].split(",")] if below else []
    return [command, *(found for name in names for found in subcommands(capsys, program, name))]


@pytest.mark.parametrize(
    ("program", "some"),
    [(cli.PRODUCT, {"data convert 3dpw", "train tiny"}), (LAB, {"lift-hand", "synthesize pictures"})],
)
def test_the_help_of_every_command_ends_with_examples(program, some, capsys):
    commands = subcommands(capsys, program, "")[1:]
    assert {*program.names} | some <= {*commands}
    assert {*program.names} <= {*program.examples} <= {*commands}
    for command in commands:
        with pytest.raises(SystemExit):
            program.main([*command.split(), "--help"])
        text = capsys.readouterr().out
        assert f"usage: {program.name} {command.split()[0]} " in text
        examples = re.findall(rf"^example: {program.name} (.*)$", text, re.MULTILINE)
        assert examples
        if command in program.examples and f"{command} [-h] {{" not in text:
            assert all(example.startswith(command) for example in examples)
            used = [word for example in examples for word in example.split() if word.startswith("--")]
            assert [word for word in used if word not in text] == []


@pytest.mark.parametrize("program", [cli.PRODUCT, LAB])
def test_completion_script(program, capsys):
    assert program.main(["completion", "bash"]) == 0
    assert program.name in capsys.readouterr().out


def imported(code: str) -> set[str]:
    """Names of the modules that a fresh process has imported after running `code`."""
    lines = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True)
    return {*done.stdout.splitlines()}


def test_importing_the_package_loads_nothing_heavy():
    assert not {"torch", "numpy"} & imported("import i2l_meshnet")
    assert not {"torch", "numpy"} & imported("import i2l_meshnet.cli")


def test_a_command_imports_only_what_it_needs(tmp_path):
    photo = Path(__file__).parents[1] / "examples" / "standing_phone.jpg"
    arguments = ["predict", str(photo), "--no-detect", "--out", str(tmp_path)]
    loaded = imported(f"from i2l_meshnet import cli\ncli.main({arguments})")
    assert len([*tmp_path.glob("standing_phone*")]) == 12
    others = {target.partition(":")[0] for name, target in cli.COMMANDS.items() if name != "predict"}
    assert not loaded & others
    ours = {f"i2l_meshnet.{name}" for name in ("data", "training", "evaluation", "serving", "exporting")}
    assert not {name for name in loaded if name.startswith("i2l_lab")}
    extras = {"fastapi", "lightning_fabric", "matplotlib", "onnx", "openvino", "pyarrow", "viser"}
    # Each import takes 0.3 to 2 seconds; the last two belong to PyTorch's compiler.
    heavy = {"scipy.optimize", "scipy.special", "trimesh", "roma", "torch._dynamo", "sympy"}
    assert not loaded & (ours | extras | heavy)


def test_data_fetch_fetches_all_assets_of_a_benchmark(capsys, monkeypatch):
    fetched = []
    monkeypatch.setattr(assets, "ensure", lambda name: fetched.append(name) or name)
    assert cli.main(["data", "fetch", "real-multiview"]) == 0
    assert fetched == ["multiview", "detector", "rtmpose"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_standard_output_is_one_line():
    command = [sys.executable, "-c", "import sys; from i2l_meshnet.cli import main; sys.exit(main())"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "assets"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("i2l-meshnet: ")
