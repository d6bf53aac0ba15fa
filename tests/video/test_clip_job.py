import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filmed import CAMERA, SIZE, Stage, Walker, frame_pixels, stage_options, steady, write_clip
from PIL import Image

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.video import follow, predict
from i2l_meshnet.video.drawing import Artist
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.predict import run
from i2l_meshnet.video.source import Clip
from i2l_meshnet.video.track import PersonTrack
from i2l_meshnet.video.tracking import Tracker

FRAMES = 26
QUICK = {"pictures": False, "formats": ()}


@pytest.fixture
def stage(toy: Body, use: Callable[[Stage], Stage]) -> Stage:
    """Two people, one of whom cannot be seen for a moment."""
    gap = Walker(lambda t: (0.4 + t, 0, 6), seen=lambda t: not 0.4 < t < 0.7)
    return use(Stage(toy, [Walker(lambda t: (-1.2 + 0.5 * t, 0, 6)), gap], noise=0.02))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    times = [time + (0.02 if number % 3 == 1 else 0) for number, time in enumerate(steady(FRAMES))]
    return write_clip(tmp_path / "walk.mp4", times, sound="aac")


def options(clip: Path, out: str = "out", **changes: Any) -> tuple[PredictOptions, ClipOptions]:
    given = {"formats": ("glb", "bvh"), "detect_every": 6, **changes}
    return stage_options(str(clip), out=clip.parent / out, **given)


def tracks(folder: Path) -> list[PersonTrack]:
    return [PersonTrack.load(path) for path in sorted(folder.glob("*_person_*.npz"))]


def test_a_clip_gives_videos_tracks_and_animation(stage: Stage, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*options(clip, save_vertices=True)) == 0
    out = clip.parent / "out"
    names = {"walk_overlay.mp4", "walk_side_by_side.mp4", "walk.json"}
    names |= {f"walk_person_0{number}.{ending}" for number in (0, 1) for ending in ("npz", "glb", "bvh")}
    assert {path.name for path in out.iterdir()} == names
    assert f"{FRAMES} frames, 2 people" in capsys.readouterr().out

    source, overlay = Clip(clip), Clip(out / "walk_overlay.mp4")
    assert (overlay.width, overlay.height) == SIZE
    assert overlay.has_audio
    assert [frame.ticks for frame in overlay.frames()] == [frame.ticks for frame in source.frames()]
    drawn, plain = (next(video.frames(10)).pixels.astype(int) for video in (overlay, source))
    x, y, w, h = (round(value) for value in stage.box(stage.meshes(0.5)[0]))
    assert np.abs(drawn - plain)[y : y + h, x : x + w].mean() > 15
    assert np.abs(drawn - plain)[:, : max(x - 10, 1)].mean() < 5
    side = Clip(out / "walk_side_by_side.mp4")
    assert side.height == SIZE[1]
    assert side.width > 2 * SIZE[0]

    record = json.loads((out / "walk.json").read_text())
    assert record["clip"]["frames"] == FRAMES
    assert [person["number"] for person in record["people"]] == [0, 1]
    assert record["people"][1]["files"]["animation"]["glb"] == "walk_person_01.glb"
    for number, track in enumerate(tracks(out)):
        assert track.frame.tolist() == list(range(FRAMES))
        np.testing.assert_allclose(track.time, [frame.time for frame in source.frames()], atol=1e-9)
        assert track.params is not None
        mesh = stage.body(track.params)
        np.testing.assert_allclose(mesh.joints.numpy(), track.joints, atol=1e-5)
        truth = np.stack([stage.meshes(time)[number].vertices.numpy() for time in steady(FRAMES)])
        assert np.linalg.norm(mesh.vertices.numpy() - truth, axis=-1).mean() < 0.08
        assert track.vertices is not None
        assert track.origin is not None
        lixel = track.vertices.astype(np.float32) + track.origin[:, None]
        error = np.linalg.norm(lixel - truth, axis=-1)
        assert error.mean() < 0.08
        assert error[track.bridged].sum() <= 0.08 * error[track.bridged].size
    whole, bridged = (track.bridged for track in tracks(out))
    assert not whole.any()
    assert bridged.any()
    assert not bridged[:8].any()
    assert not bridged[-8:].any()


def interrupt(owner: type, name: str, after: int, run: Callable[[], Any]) -> None:
    """Run until a method is called more than `after` times, as if Ctrl-C was pressed then."""
    calls, method = iter(range(10**6)), getattr(owner, name)

    def limited(*arguments: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return method(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, limited)
        with pytest.raises(KeyboardInterrupt):
            run()


@pytest.mark.slow
def test_an_interrupted_run_resumes(stage: Stage, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/security/test_kills.py compares the files of killed and whole runs."""
    for owner, name, after in ((Tracker, "step", 19), (Artist, "draw", 12)):
        interrupt(owner, name, after, lambda: run(*options(clip, smooth="offline")))
        assert [path.name for path in (clip.parent / "out").iterdir()] == ["walk.unfinished"]
    # The first run kept frames 0 to 15. The second run processed the others, and was stopped while drawing.
    assert len(stage.looks) == 19 + FRAMES - 16
    drawn: list[int] = []
    draw = Artist.draw
    monkeypatch.setattr(Artist, "draw", lambda self, pixels, number: drawn.append(number) or draw(self, pixels, number))
    run(*options(clip, smooth="offline"))
    assert drawn == list(range(8, FRAMES))


def test_other_options_discard_the_kept_work(stage: Stage, clip: Path) -> None:
    interrupt(Tracker, "step", 19, lambda: run(*options(clip, **QUICK)))
    stage.looks.clear()
    run(*options(clip, smooth="off", **QUICK))
    assert len(stage.looks) == FRAMES


def test_smoothing_reduces_jitter(stage: Stage, clip: Path) -> None:
    jitter = {}
    for smooth in ("off", "one-euro", "offline"):
        run(*options(clip, smooth, smooth=smooth, **QUICK))
        joints = tracks(clip.parent / smooth)[0].joints
        jitter[smooth] = float(np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1).mean())
        assert not list((clip.parent / smooth).glob("*.mp4"))
    assert jitter["one-euro"] < 0.75 * jitter["off"]
    assert jitter["offline"] < 0.6 * jitter["off"]


def test_existing_results_are_kept_without_overwrite(stage: Stage, clip: Path) -> None:
    run(*options(clip, **QUICK))
    stage.looks.clear()
    assert run(*options(clip, **QUICK)) == 0
    assert not stage.looks
    stray = clip.parent / "out" / "walk_person_07.npz"
    stray.write_text("not ours")
    run(*options(clip, overwrite=True, **QUICK))
    assert len(stage.looks) == FRAMES
    assert stray.exists()


def test_a_folder_of_photos_and_clips(stage: Stage, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(frame_pixels(0)).save(clip.parent / "walk.png")
    (clip.parent / "broken.mp4").write_text("nothing")
    photos: list[str] = []

    def predict_pictures(options: Any, tasks: Any) -> int:
        photos.extend(f"{picture.path.name} as {name}" for picture, name in tasks)
        return 0

    monkeypatch.setattr(predict, "predict_pictures", predict_pictures)
    given, clips = options(clip, **QUICK)
    folder = dataclasses.replace(given.input, inputs=(str(clip.parent),))
    assert run(dataclasses.replace(given, input=folder), clips) == 1
    assert photos == ["walk.png as walk_png"]
    assert (clip.parent / "out" / "walk_mp4.json").exists()
    assert not list((clip.parent / "out").glob("broken*"))


def test_a_clip_without_people(stage: Stage, clip: Path) -> None:
    stage.walkers = [Walker(lambda t: (0, 0, 6), seen=lambda t: False)]
    assert run(*options(clip)) == 0
    names = {"walk_overlay.mp4", "walk_side_by_side.mp4", "walk.json"}
    assert {path.name for path in (clip.parent / "out").iterdir()} == names


def test_a_network_without_parameters(stage: Stage, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = stage.look

    def bare(*arguments: Any) -> Any:
        return dataclasses.replace(look(*arguments), params=None, parametric_mesh=None, confidence=None)

    monkeypatch.setattr(stage, "look", bare)
    run(*options(clip, pictures=False))
    track = tracks(clip.parent / "out")[0]
    assert track.params is None
    assert np.isnan(track.confidence).all()
    assert not list((clip.parent / "out").glob("*.glb"))


@pytest.mark.parametrize(
    "wrong", [{"detect_every": 0}, {"webcam": -1}, {"max_clip_length": 0.0}, {"hand": "any"}], ids=str
)
def test_invalid_options(clip: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        run(*options(clip, **wrong))
    assert [caught.value.argument] == [*wrong]
    assert not (clip.parent / "out").exists()


def test_predict_video_yields_frame_by_frame(stage: Stage, clip: Path) -> None:
    intrinsics = follow.Intrinsics(matrix=(*CAMERA.focal.tolist(), *CAMERA.center.tolist()))
    lazy = follow.predict_video(stage, clip, intrinsics=intrinsics)
    first = next(lazy)
    assert len(stage.looks) == 1
    assert sorted(first.people) == [0, 1]
    assert first.overlay().shape == first.pixels.shape
    smooth = [first, *lazy]
    raw = list(follow.predict_video(stage, clip, smooth="off", intrinsics=follow.Intrinsics(focal=300.0)))
    assert len(smooth) == len(raw) == FRAMES
    smooth_depth, raw_depth = ([frame.people[0].root_depth for frame in frames] for frames in (smooth, raw))
    assert np.abs(np.diff(smooth_depth, 2)).mean() < 0.6 * np.abs(np.diff(raw_depth, 2)).mean()
    params, mesh = smooth[-1].people[0].params, smooth[-1].people[0].parametric_mesh
    assert params is not None
    assert mesh is not None
    np.testing.assert_allclose(stage.body(params).vertices.numpy(), mesh.vertices.numpy(), atol=1e-6)
