"""Files of an earlier commit can still be read: a checkpoint, a training state, an unfinished clip, results.

They are in `kept/`, made by `--remake`. The network is a tiny one for the toy body.
"""

import json
import lzma
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from golden import Tolerance
from safetensors import safe_open
from safetensors.torch import save_file
from scenes import clip, example
from surfaces import asset, meshnet, slim_networks
from test_training import log
from written import READERS, folder

import i2l_meshnet
from i2l_meshnet.cli import main

KEPT = Path(__file__).parent / "kept"
WEIGHTS, STATE = "snapshot_0.safetensors", "state_lixel_00000006.pt"
RECIPE: tuple[object, ...] = ("tiny", "--end-epoch", 3, "--crop", 32, "--pictures", 16)
RECIPE += ("--backbone", "resnet18", "--head", "lixel", "--batch", 4, "--learning-rate", 1e-3, "--decay-epochs")
RECIPE += ("--decay-factor", 10, "--augment")
RECIPE += ("--ema", 0.9, "--device", "cpu", "--workers", 0, "--log-every", 1, "--no-tensorboard")
CLOSE = [Tolerance(r"\.mp4/means", 10.0), Tolerance(".*", 2e-3, 5e-3)]
# The mesh of a nearly untrained network is tiny and 43 km away: its normals are mostly rounding.
SPECK = [Tolerance(r"(NORMAL|normals)/values", 0.5), Tolerance(r"(NORMAL|normals)", 0.01), Tolerance(".*", 2e-3, 0.01)]


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    with slim_networks(widths=(2, 3, 4, 5), channels=4):
        yield


FILM: tuple[object, ...] = ("predict", "walk.mp4", "--out", ".", "--device", "cpu", "--no-pictures", "--no-detect")
FILM += ("--boxes", "boxes.json", "--formats", "bvh")
"""Predict a clip of one person in a given box. Paths are relative, as they are stored in the files."""


@pytest.fixture(scope="module")
def kept(remake: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of kept files. With `--remake`, they are made."""
    if remake:
        shutil.rmtree(KEPT, ignore_errors=True)
        KEPT.mkdir()
        work = tmp_path_factory.mktemp("kept")
        _make_training(work)
        _make_clip()
        _make_results(work)
    return KEPT


def _make_training(work: Path) -> None:
    data = ("--data", work / "data")
    meshnet("train", *RECIPE, *data, "--out", work / "start", "--max-steps", 5)
    start = work / "start" / "model_dump" / WEIGHTS
    with safe_open(start, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # The regressor, most of the weights, is not used in this stage: zeros compress well.
    kept = {
        name: torch.zeros_like(value) if name.startswith("parameter_regressor.") else value
        for name, value in tensors.items()
    }
    save_file(kept, work / "start.safetensors", metadata)
    run = ("--out", work / "train", "--start", work / "start.safetensors")
    meshnet("train", *RECIPE, *data, *run, "--max-steps", 6)
    for name in (WEIGHTS, STATE):
        content = (work / "train" / "model_dump" / name).read_bytes()
        (KEPT / f"{name}.xz").write_bytes(lzma.compress(content, preset=9))
    shutil.copy(work / "train" / "log" / "lixel.csv", KEPT)


def _make_clip() -> None:
    """A clip, and the files of a run that is stopped after its first 64 frames."""
    picture = example("standing_garden", 176)
    with av.open(KEPT / "walk.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 96, 160, "yuv420p"
        for number in range(72):
            top, left = number // 8, number // 10
            pixels = np.ascontiguousarray(picture[top : top + 160, left : left + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        container.mux(stream.encode())
    (KEPT / "boxes.json").write_text("[[4, 2, 88, 156]]\n")
    unfinished = KEPT / "walk.unfinished"
    first = unfinished / "seen_000000.npz"

    def stop() -> None:
        while not first.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    # Where tests run in the background, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    here = Path.cwd()
    os.chdir(KEPT)
    watch = threading.Thread(target=stop, daemon=True)
    watch.start()
    try:
        assert main([str(word) for word in FILM]) == 130
    finally:
        os.chdir(here)
        signal.signal(signal.SIGINT, before)
    # Tests replace the path and time of the clip.
    facts = json.loads((unfinished / "facts.json").read_text())
    (unfinished / "facts.json").write_text(json.dumps({**facts, "clip": ["walk.mp4", 0, 0]}, sort_keys=True))
    for path in unfinished.iterdir():
        # The lock marks a work folder of this program.
        if path not in (first, unfinished / "facts.json", unfinished / ".i2l-meshnet.lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _make_results(work: Path) -> None:
    asset("detector")
    assert cv2.imwrite(str(work / "photo.png"), example("standing_phone", 400))
    shared = ("--device", "cpu", "--no-pictures", "--out", work / "results")
    meshnet("predict", work / "photo.png", "--hands", "--formats", "obj", *shared)
    meshnet("predict", clip(work / "film.mkv", 8), "--formats", "bvh", *shared)
    for name in ("photo.json", "photo.npz", "film.json", "film_person_00.npz"):
        shutil.copy(work / "results" / name, KEPT)


def unpacked(kept: Path, name: str, folder: Path) -> Path:
    """Decompress a kept file into a folder."""
    (folder / name).write_bytes(lzma.decompress((kept / f"{name}.xz").read_bytes()))
    return folder / name


def test_a_checkpoint(kept: Path, compare: Callable[..., None], tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "photo.png"), example("standing_jacket", 160))
    weights = unpacked(kept, WEIGHTS, tmp_path)
    given = ("--weights", weights, "--no-detect", "--no-pictures", "--formats", "obj", "glb", "--device", "cpu")
    meshnet("predict", tmp_path / "photo.png", "--out", tmp_path / "out", *given)
    compare("kept_checkpoint", folder(tmp_path / "out"), SPECK)
    predictor = i2l_meshnet.MeshPredictor.load(weights, "cpu", detect=False)
    assert len(predictor(tmp_path / "photo.png")) == 1


def test_a_training_state(kept: Path, compare: Callable[..., None], tmp_path: Path) -> None:
    models = tmp_path / "train" / "model_dump"
    models.mkdir(parents=True)
    (tmp_path / "train" / "log").mkdir()
    unpacked(kept, STATE, models)
    shutil.copy(kept / "lixel.csv", tmp_path / "train" / "log")
    meshnet("train", *RECIPE, "--data", tmp_path / "data", "--out", tmp_path / "train", "--continue")
    rows = log(tmp_path / "train" / "log" / "lixel.csv")
    steps = [row["step"] for row in rows if row["loss"] != ""]
    assert steps == list(range(min(map(int, steps)), 13))
    assert torch.load(models / "state_lixel_00000012.pt", weights_only=True)["position"]["step"] == 12
    compare("kept_state", rows, [Tolerance("MPJPE", 5.0, 0.02), Tolerance(".*", 2e-3, 0.02)])


def test_an_unfinished_clip(
    kept: Path, compare: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first 64 frames are not processed again: their changed boxes are in the results."""
    for name in ("walk.mp4", "boxes.json"):
        shutil.copy(kept / name, tmp_path)
    shutil.copytree(kept / "walk.unfinished", tmp_path / "walk.unfinished")
    film, facts = tmp_path / "walk.mp4", tmp_path / "walk.unfinished" / "facts.json"
    # The path and time of the clip's file, and the version, differ here.
    content: dict[str, Any] = json.loads(facts.read_text())
    status = film.stat()
    content["clip"] = [str(film.resolve()), status.st_size, status.st_mtime_ns]
    content["version"] = version("i2l-meshnet")
    facts.write_text(json.dumps(content, sort_keys=True))
    seen = tmp_path / "walk.unfinished" / "seen_000000.npz"
    with np.load(seen) as arrays:
        marked = {**arrays, "column_box": arrays["column_box"] + 1000}
    np.savez(seen, **marked)
    monkeypatch.chdir(tmp_path)
    meshnet(*FILM)
    tracks = [READERS[".npz"](path) for path in sorted(tmp_path.glob("walk_person_*.npz"))]
    assert tracks
    for track in tracks:
        early = track["frame"] < 64
        assert early.any()
        assert (track["box"][early, 0] > 500).all()
        assert (track["box"][~early, 0] < 500).all()
    compare("kept_clip", {"tracks": tracks, "record": READERS[".json"](tmp_path / "walk.json")}, CLOSE)


@pytest.mark.parametrize("name", ["photo.json", "photo.npz", "film_person_00.npz", "film.json"])
def test_results(name: str, kept: Path, compare: Callable[..., None], tmp_path: Path) -> None:
    for ending in ("glb", "bvh"):
        meshnet("rig", kept / name, "--out", tmp_path / f"rigged.{ending}")
    compare(f"kept_{name.replace('.', '_')}", folder(tmp_path), CLOSE)


def test_a_track(kept: Path, compare: Callable[..., None]) -> None:
    track = i2l_meshnet.PersonTrack.load(kept / "film_person_00.npz")
    names = ("body", "time", "frame", "joints", "pose", "shape", "bridged")
    compare("kept_track", {name: getattr(track, name) for name in names}, CLOSE)


def test_finished_results_are_left_alone(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cv2.imwrite(str(tmp_path / "photo.png"), example("standing_phone", 400))
    (tmp_path / "out").mkdir()
    for name in ("photo.json", "photo.npz"):
        shutil.copy(kept / name, tmp_path / "out")
    before = (tmp_path / "out" / "photo.json").read_bytes()
    meshnet("predict", tmp_path / "photo.png", "--out", tmp_path / "out", "--no-detect", "--device", "cpu")
    assert (tmp_path / "out" / "photo.json").read_bytes() == before
    assert len([*(tmp_path / "out").iterdir()]) == 2
