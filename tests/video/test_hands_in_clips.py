"""Hands of people in clips: followed, steadied, drawn, written, and in the fingers of the rig."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filmed import CAMERA, Stage, Walker, steady, write_clip
from predict_options import clip_options

from i2l_lab.synthetic.bvh import read_bvh
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.fingers import with_hands
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.prediction import predict_files
from i2l_meshnet.prediction.hands import WRISTS, FoundHand, HandPredictor
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import Prediction, Side
from i2l_meshnet.video import pipeline
from i2l_meshnet.video.hands import SEARCH_EVERY, HandFollower
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.predict import run
from i2l_meshnet.video.source import Clip
from i2l_meshnet.video.track import PersonTrack
from i2l_meshnet.video.tracking import Tracker

FRAMES = 40
HIDDEN = range(14, 30)
"""Frames in which the left hand is not seen: longer than what is bridged."""


class Finder:
    """Sees the right hand always, the left one except for a while; counts looks and searches."""

    def __init__(self) -> None:
        self.frame = -1
        self.searches: list[int] = []

    def of_people(
        self,
        pixels: np.ndarray,
        people: Sequence[Prediction],
        known: Sequence[Mapping[Side, FoundHand]],
        search: Sequence[bool],
    ) -> list[dict[Side, FoundHand]]:
        self.frame = round(float(pixels[:8, :8].mean()) / 4)
        found: list[dict[Side, FoundHand]] = []
        for of, wanted in zip(known, search, strict=True):
            there: list[Side] = ["right"] if self.frame in HIDDEN else ["left", "right"]
            if wanted:
                self.searches.append(self.frame)
            points = torch.full((21, 2), float(self.frame))
            found.append({side: FoundHand(side, points, 0.9) for side in there if wanted or side in of})
        return found


class Hands(HandPredictor):
    """Gives everybody the hand at rest, turned with the time, where the body's wrist is, with a little noise."""

    def __init__(self) -> None:
        self.finder = Finder()  # type: ignore[assignment]
        self.bodies: dict[Side, Body] = {"left": load_body("anny-hand-left"), "right": load_body("anny-hand")}
        self.network_facts: dict[str, Any] = {}

    def body_of(self, side: Side) -> Body:
        return self.bodies[side]

    def with_hands(self, images: Any, people: Any, cameras: Any, hands: Any) -> list[list[Prediction]]:
        ((person, found),) = zip(people[0], hands[0], strict=True)
        return [[dataclasses.replace(person, hands={side: self.hand(person, side) for side in found})]]

    def params(self, side: Side, frame: int) -> BodyParams:
        rest = self.bodies[side].rest_params()
        turn = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.03 * frame]))
        return dataclasses.replace(rest, pose=torch.cat([turn[None], turn.expand(len(rest.pose) - 1, 3, 3)]))

    def hand(self, person: Prediction, side: Side) -> Prediction:
        body, frame = self.bodies[side], self.finder.frame  # type: ignore[attr-defined]
        wrist = person.lixel_mesh.joints[person.body.skeleton.index(WRISTS[side])]
        noise = 0.01 * torch.from_numpy(np.random.default_rng(frame).normal(size=3)).float()
        params = self.params(side, frame)
        shift = wrist + noise - body(params).joints[0]
        params = dataclasses.replace(params, translation=params.translation + shift)
        mesh = body(params)
        return dataclasses.replace(
            person, body=body, lixel_mesh=mesh, parametric_mesh=mesh, params=params, root_depth=float(mesh.joints[0, 2])
        )


@pytest.fixture(scope="module")
def anny() -> AnnyBody:
    return AnnyBody.load()


@pytest.fixture
def stage(anny: AnnyBody, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage(anny, [Walker(lambda t: (0.2 * t, 0.0, 6.0))])
    upright = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    stand = Stage.params
    monkeypatch.setattr(Stage, "params", lambda self, walker, time: stand(self, walker, time).turned(upright))
    stage.hands = Hands()  # type: ignore[assignment]
    monkeypatch.setattr(MeshPredictor, "load", lambda *arguments: stage)
    monkeypatch.setattr(predict_files.HandPredictor, "load", lambda *arguments, **more: None)
    monkeypatch.setattr(predict_files.assets, "find", lambda name: Path("detector"))
    monkeypatch.setattr(pipeline, "STRETCH", 8)
    return stage


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "walk.mp4", steady(FRAMES))


def options(clip: Path, out: str = "out", **changes: Any) -> tuple[PredictOptions, ClipOptions]:
    given: dict[str, Any] = {"intrinsics": (*CAMERA.focal.tolist(), *CAMERA.center.tolist()), "out": clip.parent / out}
    return clip_options(str(clip), hands=True, **{"formats": ("bvh",), **given, **changes})


def test_hands_are_drawn_and_written_with_their_person(stage: Stage, clip: Path, capsys: Any) -> None:
    assert run(*options(clip)) == 0
    assert "1 person, " in (told := capsys.readouterr().out)
    assert "2 hands" in told
    out = clip.parent / "out"
    track = PersonTrack.load(out / "walk_person_00.npz")
    assert set(track.hands) == {"left", "right"}
    left, right = track.hands["left"], track.hands["right"]
    assert right.present.all()
    # Seen again, the hand is known from the next search on.
    back = next(frame for frame in range(HIDDEN.stop, FRAMES) if frame % SEARCH_EVERY == 0)
    assert np.flatnonzero(~left.present).tolist() == list(range(HIDDEN.start, back))
    assert left.params is not None
    for side, hand in track.hands.items():
        there = hand.present
        wrist = track.joints[there, track.joint_names.index(WRISTS[side])]
        # As far from the camera as the body's wrist, exactly; beside it by what is left of the noise.
        np.testing.assert_allclose(hand.joints[there, 0, 2], wrist[:, 2], atol=2e-3)
        assert np.linalg.norm(hand.joints[there, 0] - wrist, axis=1).mean() < 0.02
        assert np.isnan(hand.joints[~there]).all()
        assert hand.params is not None
        mesh = load_body(hand.body)(hand.params[torch.from_numpy(there)])
        np.testing.assert_allclose(mesh.joints.numpy(), hand.joints[there], atol=1e-5)
    # The BVH's fingers turn as the hand's do while it is there, and are at rest meanwhile.
    motion = read_bvh(out / "walk_person_00.bvh")
    finger, palm = (motion.names.index(name) for name in ("finger3-1.L", "metacarpal2.L"))
    local = motion.rotations[:, palm].transpose(0, 2, 1) @ motion.rotations[:, finger]
    turned = np.degrees(np.arccos((np.trace(local, axis1=1, axis2=2) - 1).clip(-2, 2) / 2))
    assert turned[HIDDEN.start + 2 : back - 2].max() < 0.1
    assert turned[back + 1 :].min() > np.degrees(0.03 * (back - 2))
    drawn, plain = (next(Clip(path).frames(5)).pixels for path in (out / "walk_overlay.mp4", clip))
    assert drawn.shape == plain.shape


@pytest.mark.slow
def test_hands_survive_a_kill(stage: Stage, clip: Path) -> None:
    assert run(*options(clip, "whole", pictures=False)) == 0
    step, calls = Tracker.step, iter(range(1000))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 21:
            raise KeyboardInterrupt
        return step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(*options(clip, "cut", pictures=False))
    assert run(*options(clip, "cut", pictures=False)) == 0
    whole, cut = (PersonTrack.load(clip.parent / out / "walk_person_00.npz") for out in ("whole", "cut"))
    for side in ("left", "right"):
        for name in ("present", "bridged", "joints", "pose", "translation", "shape", "confidence"):
            one, other = (getattr(track.hands[side], name) for track in (whole, cut))
            np.testing.assert_array_equal(one, other)


def test_a_known_hand_is_not_searched_for(stage: Stage, clip: Path) -> None:
    run(*options(clip, pictures=False, formats=()))
    assert isinstance(stage.hands, Hands)
    finder: Any = stage.hands.finder
    assert finder.searches == list(range(0, FRAMES, SEARCH_EVERY))
    follower = HandFollower(stage.hands)
    follower.restore({"frames": 3, "people": [4], "known": [[4, "left", [[1.0, 2.0]] * 21, 0.7]]})
    assert follower.state()["known"] == [[4, "left", [[1.0, 2.0]] * 21, 0.7]]


def test_a_rig_with_hands_is_body_and_hands_at_once(anny: AnnyBody) -> None:
    generator = torch.Generator().manual_seed(1)

    def waves(bones: int, size: float) -> torch.Tensor:
        return axis_angle_to_matrix(size * torch.randn(6, bones, 3, generator=generator))

    params = BodyParams(waves(len(anny.bones), 0.2), anny.mean_shape.expand(6, -1), torch.rand(6, 3))
    hands: dict[Side, Body] = {"left": load_body("anny-hand-left"), "right": load_body("anny-hand")}
    there = torch.tensor([True, True, False, True, False, True])
    poses = {side: (hand.name, waves(len(hand.bones), 0.3), there) for side, hand in hands.items()}
    body, posed = with_hands(anny, params, poses)
    assert isinstance(body, AnnyBody)
    mesh, plain = body(posed), anny(params)
    torch.testing.assert_close(mesh.vertices[~there], plain.vertices[~there], atol=1e-5, rtol=0)
    for side, hand in hands.items():
        pose = BodyParams(poses[side][1], hand.mean_shape.expand(6, -1), torch.zeros(6, 3))
        # The rig's finger bones start where the hand's joints are, the wrist's own place apart.
        rig, own = body.rig(anny.mean_shape), hand.rig(hand.mean_shape)
        rotations, places = body._tree.pose(body.rig_rotations(posed.pose), rig.offsets, posed.translation)
        of_hand = AnnyBody.load_hand()
        chain = of_hand._tree.pose(hand.rig_rotations(pose.pose), own.offsets, pose.translation)
        for bone in ("finger2-3", "finger5-2", "finger1-1"):
            row = body.rig_bones.index(f"{bone}.{side[0].upper()}")
            mine = places[:, row] - places[:, body.rig_bones.index(f"wrist.{side[0].upper()}")]
            theirs = chain[1][:, of_hand.rig_bones.index(f"{bone}.R")]
            torch.testing.assert_close(mine[there], theirs[there], atol=5e-4, rtol=0)
        # The wrist bone is turned against the camera as the hand's root is.
        turned = rotations[there][:, body.rig_bones.index(f"wrist.{side[0].upper()}")]
        torch.testing.assert_close(turned, pose.pose[there][:, 0], atol=1e-5, rtol=0)


def test_bodies_without_fingers_are_animated_without(anny: AnnyBody) -> None:
    toy, hand = load_body("toy"), load_body("anny-hand")
    params = toy.rest_params(3)
    seen = (hand.name, hand.rest_params(3).pose, torch.ones(3, dtype=torch.bool))
    assert with_hands(toy, params, {"right": seen}) == (toy, params)
    assert with_hands(anny, anny.rest_params(3), {"right": ("mano", *seen[1:])})[0] is anny
