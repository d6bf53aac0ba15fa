"""The `export` command on the network that ships, and `predict` with what it wrote."""

import json
from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet import cli
from i2l_meshnet.exporting import export
from i2l_meshnet.exporting.deviation import Deviation

PHOTO = Path(__file__).parents[2] / "examples" / "standing_phone.jpg"


@pytest.mark.slow
def test_predict_gives_the_same_with_an_exported_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = tmp_path / "files" / "default.onnx"
    assert cli.main(["export", "--out", str(exported)]) == 0
    assert [file.name for file in exported.parent.iterdir()] == ["default.onnx"]
    options = ["--no-detect", "--no-pictures", "--formats", "obj"]
    for name, weights in (("own", []), ("exported", ["--weights", str(exported)])):
        assert cli.main(["predict", str(PHOTO), "--out", str(tmp_path / name), *options, *weights]) == 0
    own, found = (np.load(tmp_path / name / "standing_phone.npz") for name in ("own", "exported"))
    with own, found:
        assert {*own} == {*found}
        numbers = [key for key in own if own[key].dtype.kind == "f"]
        assert any("vertices" in key for key in numbers)
        for key in numbers:
            # Metres, pixels and radians: a tenth of a millimetre, and some pixels' hundredths.
            atol = 1e-4 if "vertices" in key else 2e-2
            np.testing.assert_allclose(found[key], own[key], atol=atol, rtol=0, err_msg=key)
    record = json.loads((tmp_path / "exported" / "standing_phone.json").read_text())
    assert record["network"]["runtime"] == "onnx"
    assert record["network"]["weights"] == "default.onnx"
    capsys.readouterr()

    for arguments, expected in (
        (["--runtime", "torch"], "default.onnx is for --runtime onnx or openvino, not torch"),
        (["--precision", "bf16"], "--precision bf16 of an exported network is OpenVINO's"),
    ):
        assert cli.main(["predict", str(PHOTO), "--out", str(tmp_path), "--weights", str(exported), *arguments]) == 1
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1


def test_nothing_is_left_where_the_deviation_is_above_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "write", lambda network, metadata, runtime, path: path.write_text("a network"))
    monkeypatch.setattr(export, "_predictor", lambda *arguments: None)
    monkeypatch.setattr(export, "subjects", lambda *arguments: [])
    monkeypatch.setattr(export, "deviation", lambda *arguments: Deviation(1, 0.6, 0.1, None))
    path = tmp_path / "default.onnx"
    path.write_text("what was there")
    assert cli.main(["export", "--out", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path} is not written" in error
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["default.onnx"]
    assert path.read_text() == "what was there"
    assert cli.main(["export", "--out", str(path), "--limit", "0.7"]) == 0
    assert path.read_text() == "a network"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "network.bin"], "network.bin"),
        (["--out", "network.onnx", "--format", "openvino"], ".openvino"),
        (["--out", "network.xml"], "network.xml"),
        (["--out", "network.pt2"], "network.pt2: .pt2 export was removed: export to .onnx or .openvino"),
        (["--out", "network.onnx", "--int8"], "8-bit networks were removed: export without --int8"),
        (["--out", "network.onnx", "--limit", "0"], "--limit must be greater than 0"),
        (["--out", "network.onnx", "--hand", "--weights", "x.safetensors"], "--hand"),
        (["--out", "network.onnx", "--weights", "no.safetensors"], "no.safetensors does not exist"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", *arguments]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
