"""Saved results read back, and written as animation files by the command."""

from pathlib import Path

import numpy as np
import pytest
from glb_reader import SkinnedFile

from i2l_meshnet import cli
from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.viewing.saved import read_saved


def test_a_photo_is_read_back_from_each_of_its_files(photo: Path, toy: Body) -> None:
    with np.load(photo.with_suffix(".npz")) as arrays:
        expected = arrays["param_vertices"]
    for path in (photo, photo.with_suffix(".npz"), photo.parent):
        scene = read_saved(path)
        assert [person.label for person in scene.people] == ["person 0", "person 1"]
        assert (scene.picture, scene.size, scene.is_clip) == ("photo.jpg", (320, 240), False)
        for person, vertices in zip(scene.people, expected, strict=True):
            assert person.track.focal.tolist() == [500.0, 500.0]
            param = person.mesh("param", 0, toy)
            assert param is not None
            np.testing.assert_allclose(param, vertices, atol=1e-4)
            np.testing.assert_allclose(toy.joint_regressor.numpy() @ param, person.track.joints[0], atol=0.2)
            assert person.mesh("lixel", 0, None) is not None
            assert person.mesh("param", 0, None) is None


def test_hands_are_read_beside_their_people(photo: Path, tmp_path: Path) -> None:
    with np.load(photo.with_suffix(".npz")) as file:
        arrays = dict(file)
    of_people = ("body", "box", "confidence", "lixel_vertices", "lixel_joints", "param_joints", "pose_matrix")
    of_people += ("shape", "translation")
    hands = {f"hand_{key}": arrays[key][1:] for key in of_people}
    hands |= {f"hand_{key}": arrays[key] for key in ("faces", "joint_names", "bone_names", "shape_names")}
    np.savez(tmp_path / "hands.npz", **arrays, **hands, hand_person=np.array([1]), hand_side=np.array(["left"]))
    people = read_saved(tmp_path / "hands.npz").people
    assert [person.label for person in people] == ["person 0", "person 1", "person 1, left hand"]
    np.testing.assert_array_equal(people[2].track.joints, people[1].track.joints)


def test_a_clip_is_read_back_whole_or_by_person(clip: Path) -> None:
    for path in (clip, clip.parent):
        scene = read_saved(path)
        assert scene.is_clip
        assert [(person.track.frame[0], len(person.track.time)) for person in scene.people] == [(0, 10), (4, 8)]
    (person,) = read_saved(clip.parent / "clip_person_01.npz").people
    assert person.label == "clip_person_01"
    assert person.mesh("lixel", 0, None) is None
    np.testing.assert_allclose(person.track.time, np.arange(4, 12) / 25)


def test_a_person_of_a_clip_becomes_an_animated_glb(clip: Path, toy: Body, tmp_path: Path, capsys) -> None:
    out = tmp_path / "walker.glb"
    assert cli.main(["rig", str(clip), "--person", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: clip_person_01, body toy, 8 frames\n"
    params = read_saved(clip).people[1].track.params
    assert params is not None
    file = SkinnedFile(out)
    for time, vertices in zip(file.times, toy(params).vertices.double().numpy(), strict=True):
        np.testing.assert_allclose(file.pose(float(time)), vertices * CAMERA_TO_GLTF, atol=1e-4)


def test_a_person_of_a_photo_becomes_a_rig_in_the_photos_pose(photo: Path, tmp_path: Path) -> None:
    with np.load(photo.with_suffix(".npz")) as arrays:
        expected = arrays["param_vertices"] * CAMERA_TO_GLTF
    assert cli.main(["rig", str(photo.with_suffix(".npz")), "--out", str(tmp_path / "person.glb")]) == 0
    np.testing.assert_allclose(SkinnedFile(tmp_path / "person.glb").pose(), expected[0], atol=1e-4)
    # The same as predict writes by --formats rigged-glb.
    np.testing.assert_allclose(SkinnedFile(photo.parent / "photo_1_param_rigged.glb").pose(), expected[1], atol=1e-4)
    assert not list(photo.parent.glob("*lixel*"))
    assert cli.main(["rig", str(photo), "--out", str(tmp_path / "person.bvh")]) == 0
    assert "Frames: 1\n" in (tmp_path / "person.bvh").read_text()


@pytest.fixture
def cases(photo: Path, tmp_path: Path) -> dict[str, list[str]]:
    """Name of a fault -> arguments of `rig`, without --out."""
    for name, content in (("notes.json", b"[1]"), ("broken.npz", b"no zip"), ("text.txt", b"x")):
        (tmp_path / name).write_bytes(content)
    with np.load(photo.with_suffix(".npz")) as file:
        arrays = dict(file)
    parameters = ("pose_matrix", "shape", "translation")
    np.savez(tmp_path / "lixels.npz", **{key: value for key, value in arrays.items() if key not in parameters})
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "odd.npz", **{**arrays, "body": np.array("toy")})
    (tmp_path / "two").mkdir()
    for name in ("a.json", "b.json"):
        (tmp_path / "two" / name).write_bytes(photo.read_bytes())
    files = ("notes.json", "broken.npz", "text.txt", "other.npz", "odd.npz", "lixels.npz", "missing.npz", "two")
    return {name: [str(tmp_path / name)] for name in files} | {"photo.npz": [str(photo), "--person", "2"]}


def test_unusable_results_are_reported_in_one_line(cases: dict[str, list[str]], tmp_path: Path, capsys) -> None:
    for name, arguments in cases.items():
        assert cli.main(["rig", *arguments, "--out", str(tmp_path / "x.glb")]) == 1
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1
    assert not (tmp_path / "x.glb").exists()
    assert cli.main(["rig", "x.json", "--out", "x.fbx"]) == 1
    assert "--out" in capsys.readouterr().err
    (person, _) = read_saved(tmp_path / "lixels.npz").people
    assert person.track.params is None
    assert person.track.joints.shape[0] == 1
