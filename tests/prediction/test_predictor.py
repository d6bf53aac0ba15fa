import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_in import KnownPerson, Scene, TruthNetwork

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.crop import Crop, published_boxes
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.images import as_photo
from i2l_meshnet.prediction.intrinsics import DEFAULT_FIELD_OF_VIEW, Intrinsics
from i2l_meshnet.prediction.placing import CONFIDENCE_GATE
from i2l_meshnet.prediction.predictor import MeshPredictor

INTRINSICS = Intrinsics(matrix=(860.0, 860.0, 449.5, 349.5))


@pytest.mark.parametrize("published", [False, True], ids=["default grid", "published grid"])
def test_people_are_placed_in_space(scenes: list[Scene], anny: Body, network: TruthNetwork, published: bool) -> None:
    predictor = MeshPredictor(TruthNetwork(scenes, anny, LixelGrid()) if published else network, anny)
    people = predictor(scenes[0].pixels, boxes=scenes[0].boxes, intrinsics=INTRINSICS)
    assert len(people) == 3
    root = anny.skeleton.root_index
    for found, truth in zip(people, scenes[0].people, strict=True):
        assert found.parametric_mesh is not None
        assert found.params is not None
        for mesh in (found.lixel_mesh, found.parametric_mesh):
            torch.testing.assert_close(mesh.vertices, truth.mesh.vertices, rtol=0, atol=1e-3)
            torch.testing.assert_close(mesh.joints, truth.mesh.joints, rtol=0, atol=1e-3)
        torch.testing.assert_close(anny(found.params).vertices, found.parametric_mesh.vertices, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.params.translation, truth.params.translation, rtol=0, atol=1e-3)
        assert found.root_depth == pytest.approx(float(truth.mesh.joints[root, 2]), abs=1e-3)
        assert found.reprojection_error is not None
        assert max(found.reprojection_error) < 0.01
        flat = scenes[0].camera.project(truth.mesh.joints)
        torch.testing.assert_close(found.joints_image, flat, rtol=0, atol=0.01)
        assert found.box.tolist() == pytest.approx(truth.box)


def test_people_of_several_pictures_share_batches(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    predictor = MeshPredictor(network, anny, batch_size=3)
    subjects = [predictor.prepare(as_photo(scene.pixels), boxes=scene.boxes, intrinsics=INTRINSICS) for scene in scenes]
    together = predictor.predict(subjects)
    assert network.batches == [3, 1]
    assert [len(found) for found in together] == [3, 1]
    for scene, found in zip(scenes, together, strict=True):
        for number, (person, box) in enumerate(zip(found, scene.boxes, strict=True)):
            alone = predictor(scene.pixels, boxes=[box], intrinsics=INTRINSICS)[0]
            torch.testing.assert_close(alone.lixel_mesh.vertices, person.lixel_mesh.vertices, rtol=0, atol=1e-5)
            truth = scene.people[number].mesh.vertices
            torch.testing.assert_close(person.lixel_mesh.vertices, truth, rtol=0, atol=1e-3)


def test_without_parameters_bone_lengths_give_the_depth(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    network.with_params = False
    people = MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes, intrinsics=INTRINSICS)
    for found, truth in zip(people, scenes[0].people, strict=True):
        assert found.params is None
        assert found.parametric_mesh is None
        assert found.reprojection_error is None
        # Joints regressed from a bent body's surface are not quite as far apart as at rest.
        depth = float(truth.mesh.joints[anny.skeleton.root_index, 2])
        assert found.root_depth == pytest.approx(depth, rel=0.05)
        with pytest.raises(InputError):
            found.surface("param")


def test_a_given_root_depth_is_kept(predictor: MeshPredictor, scenes: list[Scene]) -> None:
    boxes = [PersonBox(scenes[0].boxes[0], root_depth=7.0), PersonBox(scenes[0].boxes[1])]
    people = predictor(scenes[0].pixels, boxes=boxes, intrinsics=INTRINSICS, root_depth=6.0)
    assert [person.root_depth for person in people] == [7.0, 6.0]
    assert {person.root_depth_source for person in people} == {"given"}
    root = predictor.body.skeleton.root_index
    for person in people:
        assert person.parametric_mesh is not None
        assert float(person.parametric_mesh.joints[root, 2]) == pytest.approx(person.root_depth, abs=1e-4)


def test_low_confidence_is_unreliable(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    for confidence, reliable in ((CONFIDENCE_GATE - 0.01, False), (CONFIDENCE_GATE + 0.01, True)):
        network.confidence = confidence
        person = MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes[:1])[0]
        assert person.reliable is reliable
        assert person.confidence == pytest.approx(confidence)
    network.with_keypoints = False
    person = MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes[:1])[0]
    assert person.reliable
    assert person.confidence is None


def lixel_pixels(network: TruthNetwork, box: PersonBox) -> torch.Tensor:
    """Image pixels of the first person's lixels in the crop of a prepared box."""
    crop = Crop.around(torch.tensor(box.box), network.grid.crop_size, margin=1.0)
    return crop.to_image(network.grid.decode(network.rows.vertices[0])[0])


def prepared_box(person: KnownPerson, network: TruthNetwork) -> PersonBox:
    box, _ = published_boxes(torch.tensor(person.box), torch.tensor([900, 700]), network.grid.crop_size)
    x, y, w, h = box.tolist()
    return PersonBox((x, y, w, h), prepared=True)


def parametric_error(network: TruthNetwork, anny: Body, scene: Scene, box: PersonBox, height: int) -> float:
    """Mean vertex error of the first person in the upper `height` rows of a picture, metres."""
    (person,) = MeshPredictor(network, anny).predict_batch([scene.pixels[:height]], [[box]], [scene.camera])[0]
    assert person.parametric_mesh is not None
    return float((person.parametric_mesh.vertices - scene.people[0].mesh.vertices).norm(dim=-1).mean())


def test_a_body_cut_by_the_border_is_placed_by_its_visible_part(
    network: TruthNetwork, anny: Body, scenes: list[Scene]
) -> None:
    truth = scenes[0].people[0]
    box, edge = prepared_box(truth, network), int(truth.box[1] + truth.box[3] * 0.6)
    vertices = network.rows.vertices.clone()
    below = lixel_pixels(network, box)[:, 1] > edge
    assert 0.2 < below.float().mean() < 0.6
    vertices[0, below, :2] += 6.0  # what the picture does not show is wrong
    network.rows = dataclasses.replace(network.rows, vertices=vertices)
    assert parametric_error(network, anny, scenes[0], box, edge) < 1e-3
    assert parametric_error(network, anny, scenes[0], box, 700) > 0.01


def test_a_body_almost_outside_is_placed_by_all_of_it(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    """The small visible part may be wrong: less than a tenth of the surface does not decide."""
    truth = scenes[0].people[0]
    box, edge = prepared_box(truth, network), int(truth.box[1] + truth.box[3] * 0.08)
    vertices = network.rows.vertices.clone()
    inside = lixel_pixels(network, box)[:, 1] <= edge
    assert 20 < int(inside.sum()) < 0.3 * len(inside)
    vertices[0, inside, 0] *= 1.2
    network.rows = dataclasses.replace(network.rows, vertices=vertices)
    assert parametric_error(network, anny, scenes[0], box, edge) < 0.02


def test_images_of_all_kinds(predictor: MeshPredictor, scenes: list[Scene], tmp_path: Path) -> None:
    pixels, boxes, path = scenes[0].pixels, scenes[0].boxes, tmp_path / "holiday.2.png"
    Image.fromarray(pixels).save(path)
    array, pillow, file = (predictor(image, boxes=boxes) for image in (pixels, Image.fromarray(pixels), path))
    assert (array.name, file.name, file.file) == ("picture", "holiday.2", "holiday.2.png")
    assert predictor(str(path), boxes=[], name="other").name == "other"
    for other in (pillow, file):
        np.testing.assert_array_equal(array.arrays()["lixel_vertices"], other.arrays()["lixel_vertices"])
    for wrong in (np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10, 3)), np.zeros((1, 1, 3), np.uint8)):
        with pytest.raises(InputError):
            predictor(wrong)


def test_a_list_gives_a_list(predictor: MeshPredictor) -> None:
    # Without a detector, each whole picture is one person.
    blank = np.full((80, 60, 3), 10, np.uint8)
    found = predictor([blank, blank])
    assert [picture.name for picture in found] == ["picture_0", "picture_1"]
    assert [picture.boxes_source for picture in found] == ["whole picture"] * 2
    assert found[0][0].box.tolist() == [0, 0, 60, 80]
    with pytest.raises(InputError):
        predictor([blank], boxes=[[0.0, 0.0, 10.0, 10.0]])  # pyright: ignore


@pytest.mark.parametrize("box", [[900.0, 0.0, 50.0, 50.0], [0.0, 0.0, -5.0, 5.0], [0.0, 0.0, 5.0]])
def test_invalid_boxes_are_refused(predictor: MeshPredictor, scenes: list[Scene], box: list[float]) -> None:
    with pytest.raises(InputError):
        predictor(scenes[0].pixels, boxes=[box])


def test_outputs_that_are_not_finite_are_an_error(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    network.rows = network.rows.map(lambda tensor: tensor * float("nan"))
    with pytest.raises(InputError, match="not finite"):
        MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes)


def test_a_prepared_box_is_used_as_it_is(predictor: MeshPredictor, grid: LixelGrid, scenes: list[Scene]) -> None:
    crop = predictor.look(scenes[0].pixels, PersonBox((10.0, 20.0, 192.0, 256.0), prepared=True))[0]
    torch.testing.assert_close(crop.affine, torch.tensor([[1.0, 0, -10], [0, 1, -20]]))
    wide = predictor.look(scenes[0].pixels, PersonBox((10.0, 20.0, 384.0, 256.0), prepared=True))[0]
    torch.testing.assert_close(wide.affine[:, :2], torch.eye(2) / 2)
    torch.testing.assert_close(wide.to_crop(torch.tensor([[202.0, 148.0]])), torch.tensor([[96.0, 128.0]]))


def test_cameras() -> None:
    camera, source = Intrinsics().camera(400, 300)
    assert source == "default"
    assert camera.center.tolist() == [199.5, 149.5]
    assert float(2 * torch.atan(200 / camera.focal[0]).rad2deg()) == pytest.approx(DEFAULT_FIELD_OF_VIEW)
    assert Intrinsics().camera(400, 300, 700.0)[1] == "exif"
    camera, source = Intrinsics(focal=650.0).camera(400, 300, 700.0)
    assert (camera.focal.tolist(), source) == ([650, 650], "given")
    assert Intrinsics(matrix=(1.0, 2.0, 3.0, 4.0)).camera(400, 300)[0].center.tolist() == [3, 4]
    assert float(Intrinsics(field_of_view=90.0).camera(400, 300)[0].focal[0]) == pytest.approx(200)
    for wrong in ({"focal": 0.0}, {"field_of_view": 180.0}, {"focal": 1.0, "field_of_view": 5.0}):
        with pytest.raises(InputError):
            Intrinsics(**wrong)
