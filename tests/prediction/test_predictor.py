import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_in import Scene, TruthNetwork

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.crop import Crop, published_boxes
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.loading import choose_device
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.images import as_photo
from i2l_meshnet.prediction.intrinsics import DEFAULT_FIELD_OF_VIEW, Intrinsics
from i2l_meshnet.prediction.placing import CONFIDENCE_GATE
from i2l_meshnet.prediction.predictor import MeshPredictor

INTRINSICS = Intrinsics(matrix=(860.0, 860.0, 449.5, 349.5))


def test_people_are_put_back_where_they_stand(predictor: MeshPredictor, scenes: list[Scene]) -> None:
    people = predictor(scenes[0].pixels, boxes=scenes[0].boxes, intrinsics=INTRINSICS)
    assert len(people) == 3
    root = predictor.body.skeleton.root_index
    for found, truth in zip(people, scenes[0].people, strict=True):
        assert found.parametric_mesh is not None
        assert found.params is not None
        for mesh in (found.lixel_mesh, found.parametric_mesh):
            torch.testing.assert_close(mesh.vertices, truth.mesh.vertices, rtol=0, atol=1e-3)
            torch.testing.assert_close(mesh.joints, truth.mesh.joints, rtol=0, atol=1e-3)
        torch.testing.assert_close(found.params.translation, truth.params.translation, rtol=0, atol=1e-3)
        assert found.root_depth == pytest.approx(float(truth.mesh.joints[root, 2]), abs=1e-3)
        assert found.reprojection_error is not None
        assert max(found.reprojection_error) < 0.01
        flat = scenes[0].camera.project(truth.mesh.joints)
        torch.testing.assert_close(found.joints_image, flat, rtol=0, atol=0.01)
        assert found.box.tolist() == pytest.approx(truth.box)


def test_the_published_networks_count_depth_along_the_camera_axis(scenes: list[Scene], anny: Body) -> None:
    network = TruthNetwork(scenes, anny, LixelGrid())
    people = MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes, intrinsics=INTRINSICS)
    for found, truth in zip(people, scenes[0].people, strict=True):
        assert found.parametric_mesh is not None
        for mesh in (found.lixel_mesh, found.parametric_mesh):
            torch.testing.assert_close(mesh.vertices, truth.mesh.vertices, rtol=0, atol=1e-3)


def test_the_parametric_mesh_is_the_body_at_its_parameters(predictor: MeshPredictor, scenes: list[Scene]) -> None:
    for found in predictor(scenes[0].pixels, boxes=scenes[0].boxes, intrinsics=INTRINSICS):
        assert found.params is not None
        assert found.parametric_mesh is not None
        vertices = predictor.body(found.params).vertices
        torch.testing.assert_close(vertices, found.parametric_mesh.vertices, rtol=0, atol=1e-5)


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


def test_the_same_picture_gives_the_same_numbers(predictor: MeshPredictor, scenes: list[Scene]) -> None:
    first, second = (predictor(scenes[0].pixels, boxes=scenes[0].boxes).arrays() for _ in range(2))
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_without_parameters_bones_tell_the_depth(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    network.with_params = False
    people = MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes, intrinsics=INTRINSICS)
    for found, truth in zip(people, scenes[0].people, strict=True):
        assert found.params is None
        assert found.parametric_mesh is None
        assert found.reprojection_error is None
        # Joints regressed from a bent body's surface are not quite as far apart as at rest.
        depth = float(truth.mesh.joints[anny.skeleton.root_index, 2])
        assert found.root_depth == pytest.approx(depth, rel=0.05)
        with pytest.raises(InputError, match="no parametric mesh"):
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


def test_low_confidence_is_told(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    for confidence, reliable in ((CONFIDENCE_GATE - 0.01, False), (CONFIDENCE_GATE + 0.01, True)):
        network.confidence = confidence
        person = MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes[:1])[0]
        assert person.reliable is reliable
        assert person.confidence == pytest.approx(confidence)
    network.with_keypoints = False
    person = MeshPredictor(network, anny)(scenes[0].pixels, boxes=scenes[0].boxes[:1])[0]
    assert person.reliable
    assert person.confidence is None


def test_a_body_cut_by_the_border_is_placed_by_what_is_seen(
    network: TruthNetwork, anny: Body, scenes: list[Scene]
) -> None:
    truth, pixels = scenes[0].people[0], scenes[0].pixels
    predictor = MeshPredictor(network, anny)
    ready, _ = published_boxes(torch.tensor(truth.box), torch.tensor([900, 700]), network.grid.crop_size)
    x, y, w, h = ready.tolist()
    crop = Crop.around(ready, network.grid.crop_size, margin=1.0)
    edge = int(truth.box[1] + truth.box[3] * 0.6)
    vertices = network.rows.vertices.clone()
    below = crop.to_image(network.grid.decode(vertices[0])[0])[:, 1] > edge
    assert 0.2 < below.float().mean() < 0.6
    vertices[0, below, :2] += 6.0  # what the picture does not show comes out as nonsense
    network.rows = dataclasses.replace(network.rows, vertices=vertices)
    person = predictor.predict_batch([pixels[:edge]], [[PersonBox((x, y, w, h), prepared=True)]], [scenes[0].camera])[
        0
    ][0]
    assert person.parametric_mesh is not None
    torch.testing.assert_close(person.parametric_mesh.vertices, truth.mesh.vertices, rtol=0, atol=2e-3)
    whole = predictor.predict_batch([pixels], [[PersonBox((x, y, w, h), prepared=True)]], [scenes[0].camera])[0][0]
    assert whole.parametric_mesh is not None
    assert float((whole.parametric_mesh.vertices - truth.mesh.vertices).norm(dim=-1).mean()) > 0.01


def test_a_body_almost_outside_is_placed_by_all_of_it(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
    """The little that the picture shows may be wrong: under a tenth of the surface does not decide."""
    truth, pixels = scenes[0].people[0], scenes[0].pixels
    ready, _ = published_boxes(torch.tensor(truth.box), torch.tensor([900, 700]), network.grid.crop_size)
    x, y, w, h = ready.tolist()
    crop = Crop.around(ready, network.grid.crop_size, margin=1.0)
    edge = int(truth.box[1] + truth.box[3] * 0.08)
    vertices = network.rows.vertices.clone()
    inside = crop.to_image(network.grid.decode(vertices[0])[0])[:, 1] <= edge
    assert 20 < int(inside.sum()) < 0.3 * len(inside)
    vertices[0, inside, 0] *= 1.2
    network.rows = dataclasses.replace(network.rows, vertices=vertices)
    box = PersonBox((x, y, w, h), prepared=True)
    (person,) = MeshPredictor(network, anny).predict_batch([pixels[:edge]], [[box]], [scenes[0].camera])[0]
    assert person.parametric_mesh is not None
    assert float((person.parametric_mesh.vertices - truth.mesh.vertices).norm(dim=-1).mean()) < 0.02


def test_pictures_of_all_kinds(predictor: MeshPredictor, scenes: list[Scene]) -> None:
    boxes = scenes[0].boxes
    from_array = predictor(scenes[0].pixels, boxes=boxes).arrays()
    from_pillow = predictor(Image.fromarray(scenes[0].pixels), boxes=boxes).arrays()
    np.testing.assert_array_equal(from_array["lixel_vertices"], from_pillow["lixel_vertices"])
    for wrong in (np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10, 3)), np.zeros((1, 1, 3), np.uint8)):
        with pytest.raises(InputError):
            predictor(wrong)


def test_files_keep_their_names(predictor: MeshPredictor, scenes: list[Scene], tmp_path: Path) -> None:
    path = tmp_path / "holiday.2.png"
    Image.fromarray(scenes[0].pixels).save(path)
    found = predictor(path, boxes=scenes[0].boxes)
    assert (found.name, found.file) == ("holiday.2", "holiday.2.png")
    assert predictor(str(path), boxes=[], name="other").name == "other"


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
def test_impossible_boxes_are_refused(predictor: MeshPredictor, scenes: list[Scene], box: list[float]) -> None:
    with pytest.raises(InputError, match="x, y, width, height"):
        predictor(scenes[0].pixels, boxes=[box])


def test_broken_weights_are_told(network: TruthNetwork, anny: Body, scenes: list[Scene]) -> None:
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


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(InputError, match="choose cpu"):
            choose_device("cuda")
    with pytest.raises(InputError):
        choose_device("tpu")
