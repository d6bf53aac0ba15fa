import subprocess
import sys

import pytest

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
        (["convert", "missing.pth.tar", "out.safetensors"], "no snapshot at missing.pth.tar"),
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


def test_info_tells_what_is_there_and_what_to_get(capsys, empty_cache, monkeypatch):
    monkeypatch.delenv("I2L_MESHNET_BODIES", raising=False)
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "anny        1229 vertices" in out
    assert "https://smpl.is.tue.mpg.de" in out
    assert "detector    not fetched" in out


def test_an_unknown_option_exits_with_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["predict", "--no-such-option"])
    assert exit_.value.code == 2


def test_every_command_explains_itself(capsys):
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as exit_:
            cli.main([command, "--help"])
        assert exit_.value.code == 0
        assert f"usage: i2l-meshnet {command}" in capsys.readouterr().out


def test_importing_the_package_loads_nothing_heavy():
    code = """
import sys
import i2l_meshnet
assert "torch" not in sys.modules
import i2l_meshnet.cli
assert "anny" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_benchmark_is_fetched_with_all_that_it_needs(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(assets, "ensure", lambda name: asked.append(name) or name)
    assert cli.main(["data", "fetch", "real-multiview"]) == 0
    assert asked == ["multiview", "detector", "rtmpose"]
    assert len(capsys.readouterr().out.splitlines()) == 3
