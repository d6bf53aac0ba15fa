"""Hands of people in clips: followed, smoothed, drawn, saved, and in the fingers of the rig."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filmed import Stage, Walker, stage_options, steady, write_clip

from i2l_lab.synthetic.bvh import read_bvh
from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.fingers import with_hands
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.prediction.hands import WRISTS, FoundHand, HandPredictor
from i2l_meshnet.prediction.results import Prediction, Side
from i2l_meshnet.video.hands import SEARCH_EVERY
from i2l_meshnet.video.predict import run
from i2l_meshnet.video.source import Clip
from i2l_meshnet.video.track import PersonTrack

FRAMES = 40
HIDDEN = range(14, 30)
"""Frames in which the left hand is not seen: longer than gaps that are bridged."""
HANDS: dict[Side, Body] = {"left": load_body("anny-hand-left"), "right": load_body("anny-hand")}


class Finder:
    """Sees the right hand in every frame, the left hand except in `HIDDEN`. searches: frames of all searches.

    last: last frame before an interruption.
    """

    def __init__(self) -> None:
        self.frame, self.last = -1, FRAMES
        self.searches: list[int] = []

    def of_people(
        self, pixels: np.ndarray, people: Any, known: Sequence[Mapping[Side, FoundHand]], search: Sequence[bool]
    ) -> list[dict[Side, FoundHand]]:
        self.frame = round(float(pixels[:8, :8].mean()) / 4)
        if self.frame > self.last:
            raise KeyboardInterrupt
        self.searches += [self.frame] * sum(search)
        visible: list[Side] = ["right"] if self.frame in HIDDEN else ["left", "right"]
        return [
            {side: FoundHand(side, torch.zeros(21, 2), 0.9) for side in visible if wanted or side in before}
            for before, wanted in zip(known, search, strict=True)
        ]


class Hands(HandPredictor):
    """Predicts the hand at rest, rotated by an angle that grows with time, near the body's wrist."""

    def __init__(self) -> None:
        self.finder = Finder()  # type: ignore[assignment]
        self.network_facts: dict[str, Any] = {}

    def body_of(self, side: Side) -> Body:
        return HANDS[side]

    def with_hands(self, images: Any, people: Any, cameras: Any, hands: Any) -> list[list[Prediction]]:
        ((person, found),) = zip(people[0], hands[0], strict=True)
        return [[dataclasses.replace(person, hands={side: self.hand(person, side) for side in found})]]

    def hand(self, person: Prediction, side: Side) -> Prediction:
        body, frame = HANDS[side], self.finder.frame  # type: ignore[attr-defined]
        wrist = person.lixel_mesh.joints[person.body.skeleton.index(WRISTS[side])]
        noise = 0.01 * torch.from_numpy(np.random.default_rng(frame).normal(size=3)).float()
        rotation = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.03 * frame]))
        rest = body.rest_params()
        params = dataclasses.replace(rest, pose=rotation.expand(len(rest.pose), 3, 3))
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
def finder(anny: AnnyBody, use: Callable[[Stage], Stage], monkeypatch: pytest.MonkeyPatch) -> Finder:
    """The finder of hands of a person who walks."""
    stage = use(Stage(anny, [Walker(lambda t: (0.2 * t, 0.0, 6.0))]))
    upright = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    lying = Stage.params
    monkeypatch.setattr(Stage, "params", lambda self, walker, time: lying(self, walker, time).rotated(upright))
    hands: Any = Hands()
    stage.hands = hands
    return hands.finder


def test_hands_are_drawn_and_saved_with_their_person(finder: Finder, tmp_path: Path) -> None:
    """In a run that is interrupted in frame 21. Frames 0 to 15 are kept, and the hands known in them."""
    clip, out = write_clip(tmp_path / "walk.mp4", steady(FRAMES)), tmp_path / "out"
    options = stage_options(str(clip), out=out, hands=True, formats=("bvh",))
    finder.last = 20
    with pytest.raises(KeyboardInterrupt):
        run(*options)
    finder.last = FRAMES
    assert run(*options) == 0
    track = PersonTrack.load(out / "walk_person_00.npz")
    assert set(track.hands) == {"left", "right"}
    left, right = track.hands["left"], track.hands["right"]
    assert right.present.all()
    # A known hand is not searched for, and a hidden one is found in the next search.
    assert finder.searches == [0, 5, 10, 15, 20, 20, 25, 30, 35]
    assert json.loads((out / "walk.json").read_text())["people"][0]["hands"].keys() == {"left", "right"}
    back = next(frame for frame in range(HIDDEN.stop, FRAMES) if frame % SEARCH_EVERY == 0)
    assert np.flatnonzero(~left.present).tolist() == list(range(HIDDEN.start, back))
    for hand_side, hand in track.hands.items():
        present = hand.present
        wrist = track.joints[present, track.joint_names.index(WRISTS[hand_side])]
        # The depth of the hand is that of the wrist; sideways, the rest of the noise remains.
        np.testing.assert_allclose(hand.joints[present, 0, 2], wrist[:, 2], atol=2e-3)
        assert np.linalg.norm(hand.joints[present, 0] - wrist, axis=1).mean() < 0.02
        assert np.isnan(hand.joints[~present]).all()
        assert hand.params is not None
        mesh = HANDS[hand_side](hand.params[torch.from_numpy(present)])
        np.testing.assert_allclose(mesh.joints.numpy(), hand.joints[present], atol=1e-5)
    # The fingers in the BVH rotate with the hand, and are at rest while the hand is hidden.
    motion = read_bvh(out / "walk_person_00.bvh")
    finger, palm = (motion.names.index(name) for name in ("finger3-1.L", "metacarpal2.L"))
    local = motion.rotations[:, palm].transpose(0, 2, 1) @ motion.rotations[:, finger]
    angle = np.degrees(np.arccos((np.trace(local, axis1=1, axis2=2) - 1).clip(-2, 2) / 2))
    assert angle[HIDDEN.start + 2 : back - 2].max() < 0.1
    assert angle[back + 1 :].min() > np.degrees(0.03 * (back - 2))
    drawn, plain = (next(Clip(path).frames(5)).pixels for path in (out / "walk_overlay.mp4", clip))
    assert drawn.shape == plain.shape


def test_a_rig_with_hands_joins_body_and_hands(anny: AnnyBody) -> None:
    generator = torch.Generator().manual_seed(1)

    def waves(bones: int, size: float) -> torch.Tensor:
        return axis_angle_to_matrix(size * torch.randn(6, bones, 3, generator=generator))

    params = BodyParams(waves(len(anny.bones), 0.2), anny.mean_shape.expand(6, -1), torch.rand(6, 3))
    present = torch.tensor([True, True, False, True, False, True])
    poses = {side: (hand.name, waves(len(hand.bones), 0.3), present) for side, hand in HANDS.items()}
    body, posed = with_hands(anny, params, poses)
    assert isinstance(body, AnnyBody)
    torch.testing.assert_close(body(posed).vertices[~present], anny(params).vertices[~present], atol=1e-5, rtol=0)
    right_hand = AnnyBody.load_hand()
    rotations, heads = body._tree.pose(
        body.rig_rotations(posed.pose), body.rig(anny.mean_shape).offsets, posed.translation
    )
    for side, hand in HANDS.items():
        _, pose, _ = poses[side]
        chain = right_hand._tree.pose(hand.rig_rotations(pose), hand.rig(hand.mean_shape).offsets, torch.zeros(6, 3))
        wrist = body.rig_bones.index(f"wrist.{side[0].upper()}")
        for bone in ("finger2-3", "finger5-2", "finger1-1"):
            found = heads[:, body.rig_bones.index(f"{bone}.{side[0].upper()}")] - heads[:, wrist]
            expected = chain[1][:, right_hand.rig_bones.index(f"{bone}.R")]
            torch.testing.assert_close(found[present], expected[present], atol=5e-4, rtol=0)
        torch.testing.assert_close(rotations[present][:, wrist], pose[present][:, 0], atol=1e-5, rtol=0)


def test_bodies_without_matching_fingers_ignore_hands(anny: AnnyBody) -> None:
    toy, hand = load_body("toy"), HANDS["right"]
    params = toy.rest_params(3)
    seen = (hand.name, hand.rest_params(3).pose, torch.ones(3, dtype=torch.bool))
    assert with_hands(toy, params, {"right": seen}) == (toy, params)
    assert with_hands(anny, anny.rest_params(3), {"right": ("mano", *seen[1:])})[0] is anny
