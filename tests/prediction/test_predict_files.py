import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from predict_options import predict_options
from stand_in import Scene, TruthNetwork

import i2l_meshnet
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.prediction import predict_files
from i2l_meshnet.prediction.images import PictureFile, find_pictures
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predict_files import result_names
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.video import predict
from i2l_meshnet.video.options import ClipOptions


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, network: TruthNetwork, anny: Body) -> MeshPredictor:
    """Jobs run the network that knows the truth, and no detector is there."""
    predictor = MeshPredictor(network, anny)
    monkeypatch.setattr(MeshPredictor, "load", lambda *arguments: predictor)
    monkeypatch.setattr(predict_files.assets, "find", lambda name: None)
    return predictor


@pytest.fixture
def photos(scenes: list[Scene], tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, scene in zip(("group.png", "one.png"), scenes, strict=True):
        Image.fromarray(scene.pixels).save(folder / name)
    boxes = {name: scene.boxes for name, scene in zip(("group.png", "one"), scenes, strict=True)}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    return folder


def options(photos: Path, *inputs: Path | str, **changes: Any) -> PredictOptions:
    given: dict[str, Any] = {"formats": ("ply",), "pictures": False, "boxes": photos.parent / "boxes.json"}
    texts = tuple(str(text) for text in inputs) or (str(photos),)
    return predict_options(*texts, **{"out": photos.parent / "out", **given, **changes})


def run(options: PredictOptions) -> int:
    return predict.run(options, ClipOptions())


def test_a_folder(photos: Path, scenes: list[Scene], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(options(photos, intrinsics=(860.0, 860.0, 449.5, 349.5))) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("2 pictures, 4 people, ")
    assert len(shown.out.splitlines()) == 1
    assert "results in" in shown.out
    with np.load(photos.parent / "out" / "group.npz") as arrays:
        truth = np.stack([person.mesh.vertices.numpy() for person in scenes[0].people])
        np.testing.assert_allclose(arrays["param_vertices"], truth, atol=2e-3)
    assert (photos.parent / "out" / "one_0_param.ply").is_file()


def test_an_error_of_an_image_does_not_affect_the_others(
    photos: Path, stand_in: MeshPredictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image cannot be read, one has a box outside, and one fails in the network."""
    boxes = json.loads((photos.parent / "boxes.json").read_text())
    for name in ("outside.png", "refused.png"):
        (photos / name).write_bytes((photos / "one.png").read_bytes())
    (photos / "text.jpg").write_text("not an image")
    boxes |= {"outside.png": [[5000, 5000, 10, 10]], "refused.png": boxes["one"], "text.jpg": boxes["one"]}
    (photos.parent / "boxes.json").write_text(json.dumps(boxes))
    predict_all = stand_in.predict

    def refuse(subjects: Any, root_depth: float | None = None) -> Any:
        if any(subject.name == "refused" for subject in subjects):
            raise InputError("refused by the network")
        return predict_all(subjects, root_depth)

    monkeypatch.setattr(stand_in, "predict", refuse)
    assert run(options(photos)) == 1
    shown = capsys.readouterr()
    failed = [line for line in shown.err.splitlines() if line.startswith("failed")]
    names = ("outside.png", "refused.png", "text.jpg")
    assert [name in line for name, line in zip(names, failed, strict=True)] == [True] * 3
    assert "2 pictures, 4 people" in shown.out
    assert "3 pictures failed" in shown.out
    assert {path.name for path in (photos.parent / "out").glob("*.json")} == {"group.json", "one.json"}


def test_existing_results_are_skipped(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options(photos, photos / "one.png"))
    before = (photos.parent / "out" / "one.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run(options(photos)) == 0
    shown = capsys.readouterr()
    assert "skipped" in shown.err
    assert "--overwrite" in shown.err
    assert "1 picture, 3 people" in shown.out
    assert (photos.parent / "out" / "one.json").stat().st_mtime_ns == before
    assert run(options(photos, overwrite=True)) == 0
    assert (photos.parent / "out" / "one.json").stat().st_mtime_ns > before


def test_without_a_detector_the_whole_image_is_one_person(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(options(photos, photos / "one.png", boxes=None)) == 0
    assert "i2l-meshnet assets detector" in capsys.readouterr().err
    record = json.loads((photos.parent / "out" / "one.json").read_text())
    assert record["boxes_source"] == "whole picture"
    assert record["people"][0]["box"] == [0, 0, 900, 700]
    assert run(options(photos, photos / "one.png", boxes=None, detect=False, overwrite=True)) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_summary_counts_empty_images_and_unreliable_people(
    photos: Path, network: TruthNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = json.loads((photos.parent / "boxes.json").read_text())
    (photos.parent / "boxes.json").write_text(json.dumps({**boxes, "group.png": []}))
    network.confidence = 0.3
    assert run(options(photos)) == 0
    shown = capsys.readouterr()
    assert "group.png" in shown.err
    assert "no person in 1 picture" in shown.out
    assert "1 person unreliable" in shown.out
    assert json.loads((photos.parent / "out" / "one.json").read_text())["people"][0]["reliable"] is False


def test_errors_of_all_images_end_the_run(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "list.json").write_text("[[0, 0, 10, 10]]")
    (tmp_path / "others.json").write_text('{"x.jpg": [[0, 0, 10, 10]]}')
    cases: list[tuple[type[UserError], dict[str, Any]]] = [
        (FileError, {"out": tmp_path / "file"}),
        (InputError, {"boxes": tmp_path / "list.json"}),
        (InputError, {"boxes": tmp_path / "others.json"}),
    ]
    for kind, changes in cases:
        with pytest.raises(kind):
            run(predict_options(str(photos), **{"out": tmp_path / "out", **changes}))
    with pytest.raises(InputError):
        run(predict_options())


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("root_depth", {"root_depth": 0.0}),
        ("score", {"score": 0.0}),
        ("max_people", {"max_people": 0}),
        ("batch_size", {"batch_size": 0}),
        ("max_pixels", {"max_pixels": 0}),
        ("max_side", {"max_side": -1}),
        ("hands", {"hands": True, "hand": "left"}),
        ("hand_weights", {"hand_weights": Path("x.safetensors")}),
        ("formats", {"formats": ("rigged-glb",), "meshes": ("lixel",)}),
        ("precision", {"precision": "bf16", "hand": "any"}),
        ("engine", {"engine": "ray"}),
        ("workers", {"workers": -1}),
    ],
)
def test_an_option_out_of_range_is_named(argument: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        predict_options("photo.jpg", **wrong)
    assert caught.value.argument == argument


def names(folder: Path, *inputs: str) -> list[str]:
    pictures = find_pictures([str(folder / text) for text in inputs], recursive=True)
    return [name.as_posix() for name in result_names(pictures)]


def test_names_never_clash(tmp_path: Path) -> None:
    for text in ("a/x.jpg", "b/x.jpg", "x.jpg", "x.png", "X.tif", "y.jpg", "d/a/x.jpg", "a.b/c.jpg"):
        path = tmp_path / text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert names(tmp_path, "a/x.jpg") == ["x"]
    assert names(tmp_path, "x.jpg", "x.png", "X.tif", "y.jpg") == ["x_jpg", "x_png", "X_tif", "y"]
    assert names(tmp_path, "a/x.jpg", "b/x.jpg") == ["a_x_jpg", "b_x_jpg"]
    assert names(tmp_path, "a/x.jpg", "d/a/x.jpg")[1] == "d_a_x_jpg"
    inside = names(tmp_path, "")
    assert {"a/x", "b/x", "d/a/x", "a.b/c", "y", "x_jpg", "x_png", "X_tif"} == set(inside)
    assert len({name.casefold() for name in inside}) == len(inside)
    same = [PictureFile(Path("/a/x.jpg"), Path("x.jpg"))] * 2
    assert len(set(result_names(same))) == 2


def test_importing_the_package_is_cheap_and_its_names_are_there() -> None:
    code = "import sys, i2l_meshnet; print([m for m in ('torch', 'cv2', 'numpy', 'numba') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
    for name in i2l_meshnet.__all__:
        assert getattr(i2l_meshnet, name).__name__ == name
    with pytest.raises(AttributeError):
        importlib.import_module("i2l_meshnet").nothing  # noqa: B018
