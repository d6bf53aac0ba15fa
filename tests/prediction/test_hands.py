"""Hands found in photographs, given meshes, and mirrored: the shipped networks on the bundled example pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.prediction.hands import HandPredictor
from i2l_meshnet.prediction.images import read_photo
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import PicturePrediction

EXAMPLES = Path(__file__).parents[2] / "examples"
GARDEN = [295.0, 30.0, 360.0, 1360.0]
"""Where the person in standing_garden.jpg is."""


@pytest.fixture(scope="module")
def hands() -> HandPredictor:
    torch.set_num_threads(1)
    return HandPredictor.load(device="cpu")


@pytest.fixture(scope="module")
def person(hands: HandPredictor) -> PicturePrediction:
    predictor = MeshPredictor.load(device="cpu", detect=False, hands=hands)
    return predictor(EXAMPLES / "standing_garden.jpg", boxes=[GARDEN])


@pytest.fixture(scope="module")
def crop(person: PicturePrediction) -> np.ndarray:
    """The photo's part around the person's left hand."""
    place = person[0].hands["left"].joints_image.mean(0).int().tolist()
    return np.ascontiguousarray(person.pixels[place[1] - 110 : place[1] + 110, place[0] - 110 : place[0] + 110])


def test_hands_are_found_at_the_wrists_of_the_body(person: PicturePrediction):
    """Within 20 px, a fifth of a hand's length here: the two networks place the wrist differently."""
    found = person[0]
    assert set(found.hands) == {"left", "right"}
    for side, hand in found.hands.items():
        assert hand.side == side
        assert hand.body.name == ("anny-hand-left" if side == "left" else "anny-hand")
        assert hand.confidence is not None
        assert hand.confidence > 0.8
        row = found.body.skeleton.index(f"{side[0].upper()}_Wrist")
        wrist = hand.camera.project(hand.lixel_mesh.joints)[0]
        body_wrist = found.camera.project(found.lixel_mesh.joints)[row]
        assert float((wrist - body_wrist).norm()) < 20
        assert abs(hand.root_depth - float(found.lixel_mesh.joints[row, 2])) < 1e-3
    # Her right hand is on the picture's left.
    assert found.hands["right"].joints_image[0, 0] < found.hands["left"].joints_image[0, 0]


def test_the_meshes_of_a_hand_agree(person: PicturePrediction):
    for hand in person[0].hands.values():
        assert hand.params is not None
        assert hand.parametric_mesh is not None
        flat = hand.camera.project(hand.lixel_mesh.joints)
        for other in (hand.camera.project(hand.parametric_mesh.joints), hand.joints_image):
            assert float((flat - other).norm(dim=-1).median()) < 8
        length = hand.parametric_mesh.joints[9] - hand.parametric_mesh.joints[0]
        assert 0.07 < float(length.norm()) < 0.14
        again = hand.body(hand.params)
        torch.testing.assert_close(again.vertices, hand.parametric_mesh.vertices, atol=2e-4, rtol=0)
        # Faces point outwards: the signed volume is positive; the open wrist changes it little.
        for kind in ("lixel", "param"):
            surface = hand.surface(kind)
            corners = (surface.vertices - surface.vertices.mean(0))[surface.faces]
            volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
            assert 1e-4 < volume < 1e-3


def test_a_mirrored_picture_gives_mirrored_hands(hands: HandPredictor, crop: np.ndarray):
    """The left hand of a picture is the mirror image of the right hand in the mirrored picture.

    Tolerances, for a hand of 110 px: the searches for the hand end at slightly different crops.
    """
    flipped = np.ascontiguousarray(crop[:, ::-1])
    (left,), (right,) = hands(crop), hands(flipped)
    assert (left.side, right.side) == ("left", "right")
    width = crop.shape[1]
    mirrored = torch.stack([width - 1 - right.joints_image[:, 0], right.joints_image[:, 1]], 1)
    assert float((left.joints_image - mirrored).norm(dim=-1).mean()) < 1.5
    flip = torch.tensor([-1.0, 1.0, 1.0])
    relative = [one.lixel_mesh.vertices - one.lixel_mesh.joints[:1] for one in (left, right)]
    assert float((relative[0] - relative[1] * flip).norm(dim=-1).mean()) < 3e-3
    assert left.params is not None
    assert right.params is not None
    torch.testing.assert_close(left.params.shape, right.params.shape, atol=0.02, rtol=0)


def test_a_rotated_picture_gives_the_rotated_hand(hands: HandPredictor, crop: np.ndarray):
    (plain,), (rotated,) = hands(crop), hands(np.ascontiguousarray(np.rot90(crop, -1)))
    assert rotated.side == "left"
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for kind in ("lixel_mesh", "parametric_mesh"):
        one, other = (getattr(found, kind).joints for found in (plain, rotated))
        torch.testing.assert_close((one - one[:1]) @ quarter.T, other - other[:1], atol=8e-3, rtol=0)


def test_no_hand_is_found_where_none_is_visible(hands: HandPredictor):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    assert len(hands(noise)) == 0
    # The hands are in pockets.
    predictor = MeshPredictor.load(device="cpu", detect=False, hands=hands)
    people = predictor(EXAMPLES / "standing_jacket.jpg", boxes=[[230.0, 60.0, 480.0, 1300.0]])
    assert people.record()["people"][0]["hands"] == {}


def test_hands_are_searched_in_given_boxes(hands: HandPredictor):
    photo = read_photo(EXAMPLES / "standing_garden.jpg").pixels
    left = hands(photo, boxes=[[620.0, 640.0, 140.0, 240.0]])
    assert [found.side for found in left] == ["left"]
    with pytest.raises(InputError):
        hands(photo, boxes=[[5000.0, 0.0, 10.0, 10.0]])


def test_another_hand_network_makes_the_meshes(crop: np.ndarray, body_directory: Path, tmp_path: Path):
    """A published network with a MANO stand-in, both untrained: its crops are upright boxes."""
    torch.manual_seed(0)
    path = tmp_path / "mano.safetensors"
    mano = load_body("mano", body_directory)
    checkpoint.save(assembly.build(assembly.published_config(mano, "resnet18"), mano), path)
    hands = HandPredictor.load(path, "cpu", body_directory)
    (found,) = hands(crop)
    assert found.side == "left"
    assert found.body.name == "mano-left"
    assert found.lixel_mesh.vertices.shape == (778, 3)
    assert bool(found.crop.mirrored)
    assert float(found.crop.rotation) == 0
    assert 60 < float(found.box[2:].max()) < 200
    assert found.confidence is None
    assert hands.network_facts["body"] == "mano"
    with pytest.raises(InputError):  # a network for whole bodies
        HandPredictor.load(Path(__file__).parents[2] / "src/i2l_meshnet/models/data/default.safetensors", "cpu")
