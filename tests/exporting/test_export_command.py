"""The `export` command on the network in the package, and `predict` with the file that it writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from i2l_meshnet import cli
from i2l_meshnet.errors import UserError
from i2l_meshnet.exporting import export
from i2l_meshnet.exporting.deviation import Deviation

PHOTO = Path(__file__).parents[2] / "examples" / "standing_phone.jpg"


@pytest.mark.slow
def test_predict_gives_the_same_with_an_exported_file(tmp_path: Path) -> None:
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
            # Vertices within 0.1 mm; other numbers are metres, pixels and radians.
            atol = 1e-4 if "vertices" in key else 2e-2
            np.testing.assert_allclose(found[key], own[key], atol=atol, rtol=0, err_msg=key)
    record = json.loads((tmp_path / "exported" / "standing_phone.json").read_text())
    assert record["network"]["runtime"] == "onnx"
    assert record["network"]["weights"] == "default.onnx"


def test_nothing_is_written_if_the_deviation_is_above_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "write", lambda network, metadata, runtime, path: path.write_text("a network"))
    monkeypatch.setattr(export, "_predictor", lambda *arguments, **named: None)
    monkeypatch.setattr(export, "subjects", lambda *arguments: [])
    monkeypatch.setattr(export, "deviation", lambda *arguments: Deviation(1, 0.6, 0.1, None))
    path = tmp_path / "default.onnx"
    path.write_text("before")
    assert cli.main(["export", "--out", str(path)]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["default.onnx"]
    assert path.read_text() == "before"
    assert cli.main(["export", "--out", str(path), "--limit", "0.7"]) == 0
    assert path.read_text() == "a network"


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (["--out", "network.bin"], "out"),
        (["--out", "network.onnx", "--format", "openvino"], "out"),
        (["--out", "network.xml"], "out"),
        (["--out", "network.pt2"], "out"),
        (["--out", "network.onnx", "--int8"], None),
        (["--out", "network.onnx", "--limit", "0"], "limit"),
        (["--out", "network.onnx", "--hand", "--weights", "x.safetensors"], "hand"),
        (["--out", "network.onnx", "--weights", "no.safetensors"], None),
    ],
    ids=str,
)
def test_invalid_options(
    arguments: list[str], argument: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        cli.PRODUCT.run(["export", *arguments])
    assert getattr(caught.value, "argument", None) == argument
    assert list(tmp_path.iterdir()) == []
