import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from filmed import CAMERA, SIZE, Stage, Walker, frame_pixels, steady, write_clip
from PIL import Image
from predict_options import clip_options

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.prediction import predict_files
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.video import follow, pipeline, predict
from i2l_meshnet.video.drawing import Artist
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.predict import run
from i2l_meshnet.video.source import Clip
from i2l_meshnet.video.track import PersonTrack
from i2l_meshnet.video.tracking import Tracker

FRAMES = 26


@pytest.fixture
def stage(toy: Body, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Two people, one of whom cannot be seen for a moment; jobs run with them, in short stretches."""
    gap = Walker(lambda t: (0.4 + t, 0, 6), seen=lambda t: not 0.4 < t < 0.7)
    stage = Stage(toy, [Walker(lambda t: (-1.2 + 0.5 * t, 0, 6)), gap], noise=0.02)
    monkeypatch.setattr(MeshPredictor, "load", lambda *arguments: stage)
    monkeypatch.setattr(predict_files.assets, "find", lambda name: Path("detector"))
    monkeypatch.setattr(pipeline, "STRETCH", 8)
    return stage


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    times = [time + (0.02 if number % 3 == 1 else 0) for number, time in enumerate(steady(FRAMES))]
    return write_clip(tmp_path / "walk.mp4", times, sound="aac")


def options(clip: Path, out: str = "out", **changes: Any) -> tuple[PredictOptions, ClipOptions]:
    given: dict[str, Any] = {
        "intrinsics": (*CAMERA.focal.tolist(), *CAMERA.center.tolist()),
        "formats": ("glb", "bvh"),
        "detect_every": 6,
        "out": clip.parent / out,
    }
    return clip_options(str(clip), **{**given, **changes})


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


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
    bridged = tracks(out)[1].bridged
    assert bridged.any()
    assert not bridged[:8].any()
    assert not bridged[-8:].any()
    assert not tracks(out)[0].bridged.any()


def interrupted(after: int, step: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter(range(10**6))

    def limited(*arguments: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return step(*arguments)

    return limited


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same(stage: Stage, clip: Path) -> None:
    run(*options(clip, "whole", smooth="offline"))
    stage.looks.clear()
    for owner, name, after in ((Tracker, "step", 19), (Artist, "draw", 12)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, interrupted(after, getattr(owner, name)))
            with pytest.raises(KeyboardInterrupt):
                run(*options(clip, "cut", smooth="offline"))
        assert [path.name for path in (clip.parent / "cut").iterdir()] == ["walk.unfinished"]
    # Frames 0 to 15 were kept by the first run, all others by the second, which was stopped while it drew.
    assert len(stage.looks) == 19 + FRAMES - 16
    with pytest.MonkeyPatch.context() as patch:
        drawn: list[int] = []
        draw = Artist.draw
        patch.setattr(Artist, "draw", lambda self, pixels, number: drawn.append(number) or draw(self, pixels, number))
        run(*options(clip, "cut", smooth="offline"))
    assert drawn == list(range(8, FRAMES))
    whole, cut = results(clip.parent / "whole"), results(clip.parent / "cut")
    assert whole.keys() == cut.keys()
    for name in whole:
        if not name.endswith(".npz"):
            assert whole[name] == cut[name], name
    for one, other in zip(tracks(clip.parent / "whole"), tracks(clip.parent / "cut"), strict=True):
        for field in ("pose", "translation", "joints", "box", "time", "shape"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_other_options_begin_anew(stage: Stage, clip: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "step", interrupted(19, Tracker.step))
        with pytest.raises(KeyboardInterrupt):
            run(*options(clip))
    stage.looks.clear()
    run(*options(clip, smooth="off"))
    assert len(stage.looks) == FRAMES


def test_smoothing_steadies_and_off_leaves_alone(stage: Stage, clip: Path) -> None:
    jitter = {}
    for smooth in ("off", "one-euro", "offline"):
        run(*options(clip, smooth, smooth=smooth, pictures=False, formats=()))
        joints = tracks(clip.parent / smooth)[0].joints
        jitter[smooth] = float(np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1).mean())
        assert not list((clip.parent / smooth).glob("*.mp4"))
    assert jitter["one-euro"] < 0.75 * jitter["off"]
    assert jitter["offline"] < 0.6 * jitter["off"]


def test_results_that_are_there_are_kept(stage: Stage, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = {"pictures": False, "formats": ()}
    run(*options(clip, **quick))
    stage.looks.clear()
    assert run(*options(clip, **quick)) == 0
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert not stage.looks
    stray = clip.parent / "out" / "walk_person_07.npz"
    stray.write_text("not ours")
    run(*options(clip, overwrite=True, **quick))
    assert len(stage.looks) == FRAMES
    assert stray.exists()


def test_pictures_and_clips_together(stage: Stage, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(frame_pixels(0)).save(clip.parent / "walk.png")
    (clip.parent / "broken.mp4").write_text("nothing")
    asked: list[str] = []

    def predict_pictures(options: Any, found: Any, names: Any) -> int:
        asked.extend(f"{picture.path.name} as {name}" for picture, name in zip(found, names, strict=True))
        return 0

    monkeypatch.setattr(predict, "predict_pictures", predict_pictures)
    given, clips = options(clip, pictures=False, formats=())
    folder = dataclasses.replace(given.input, inputs=(str(clip.parent),))
    assert run(dataclasses.replace(given, input=folder), clips) == 1
    assert asked == ["walk.png as walk_png"]
    assert (clip.parent / "out" / "walk_mp4.json").exists()
    assert not list((clip.parent / "out").glob("broken*"))


def test_nobody_in_a_clip_is_said(stage: Stage, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage.walkers = [Walker(lambda t: (0, 0, 6), seen=lambda t: False)]
    assert run(*options(clip)) == 0
    assert "0 people" in capsys.readouterr().out
    assert {path.name for path in (clip.parent / "out").iterdir()} == {
        *("walk_overlay.mp4", "walk_side_by_side.mp4", "walk.json"),
    }


def test_a_network_without_parameters_gives_tracks_without(stage: Stage, clip: Path, monkeypatch: Any) -> None:
    look = stage._look

    def bare(*arguments: Any) -> Any:
        return dataclasses.replace(look(*arguments), params=None, parametric_mesh=None, confidence=None)

    monkeypatch.setattr(stage, "_look", bare)
    run(*options(clip, pictures=False))
    track = tracks(clip.parent / "out")[0]
    assert track.params is None
    assert np.isnan(track.confidence).all()
    assert not list((clip.parent / "out").glob("*.glb"))


def test_wrong_options_and_damaged_tracks_are_told(clip: Path, tmp_path: Path) -> None:
    for wrong in ({"detect_every": 0}, {"webcam": -1}):
        with pytest.raises(InputError):
            options(clip, **wrong)
    with pytest.raises(InputError, match="for pictures"):
        run(*options(clip, hand="any"))
    assert not (clip.parent / "out").exists()
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "other.npz", a=1)
    for name in ("text.npz", "other.npz", "missing.npz"):
        with pytest.raises(FileError) as caught:
            PersonTrack.load(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_python_interface_goes_frame_by_frame(stage: Stage, clip: Path) -> None:
    frames: Iterator[follow.TrackedFrame] = follow.predict_video(
        stage, clip, intrinsics=follow.Intrinsics(matrix=(*CAMERA.focal.tolist(), *CAMERA.center.tolist()))
    )
    first = next(frames)
    assert len(stage.looks) == 1
    assert sorted(first.people) == [0, 1]
    raw = [first.people[0].root_depth]
    smooth = [frame.people[0] for frame in frames]
    assert len(smooth) == FRAMES - 1
    off = list(follow.predict_video(stage, clip, smooth="off", intrinsics=follow.Intrinsics(focal=300.0)))
    raw += [frame.people[0].root_depth for frame in off[1:]]
    steady_ = [first.people[0].root_depth, *(person.root_depth for person in smooth)]
    assert np.abs(np.diff(steady_, 2)).mean() < 0.6 * np.abs(np.diff(raw, 2)).mean()
    assert first.overlay().shape == first.pixels.shape
    with av.open(clip) as container:
        assert container.streams.video[0].frames == FRAMES
    params = smooth[-1].params
    mesh = smooth[-1].parametric_mesh
    assert params is not None
    assert mesh is not None
    np.testing.assert_allclose(stage.body(params).vertices.numpy(), mesh.vertices.numpy(), atol=1e-6)
