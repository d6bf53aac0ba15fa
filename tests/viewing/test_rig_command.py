"""Saved results read back, and written as animation files by the command."""

from pathlib import Path

import numpy as np
import pytest
from glb_reader import SkinnedFile
from pxr import Usd

from i2l_meshnet import cli
from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError
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


def test_a_person_of_a_clip_becomes_an_animated_usd(clip: Path, toy: Body, tmp_path: Path) -> None:
    out = tmp_path / "walker.usdc"
    assert cli.main(["rig", str(clip), "--person", "1", "--out", str(out)]) == 0
    stage = Usd.Stage.Open(str(out))
    times = np.array(stage.GetPrimAtPath("/walker/skeleton/motion").GetAttribute("rotations").GetTimeSamples())
    np.testing.assert_allclose(times / stage.GetTimeCodesPerSecond(), np.arange(4, 12) / 25)
    assert len(stage.GetPrimAtPath("/walker/mesh").GetAttribute("points").Get()) == toy.joint_regressor.shape[1]


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


def test_what_does_not_fit_is_told_in_one_line(photo: Path, clip: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "notes.json").write_text("[1]")
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    (tmp_path / "text.txt").write_text("x")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with np.load(photo.with_suffix(".npz")) as arrays:
        np.savez(
            tmp_path / "odd.npz", **{key: value for key, value in arrays.items() if key != "body"}, body=np.array("toy")
        )
    good = ["--out", str(tmp_path / "x.glb")]
    cases = [
        ([str(photo), "--out", "x.fbx"], "x.fbx"),
        ([str(photo), "--person", "2", *good], "photo.npz"),
        ([str(tmp_path / "missing.npz"), *good], "missing.npz does not exist"),
        ([str(tmp_path / "missing.json"), *good], "missing.json does not exist"),
        ([str(tmp_path / "notes.json"), *good], "notes.json"),
        ([str(tmp_path / "broken.npz"), *good], "broken.npz"),
        ([str(tmp_path / "text.txt"), *good], "text.txt"),
        ([str(tmp_path / "other.npz"), *good], "image_size"),
        ([str(tmp_path / "odd.npz"), *good], "odd.npz"),
        ([str(tmp_path), *good], str(tmp_path)),
    ]
    for arguments, expected in cases:
        assert cli.main(["rig", *arguments]) == 1
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    assert not (tmp_path / "x.glb").exists()


def test_a_folder_of_several_results_asks_which(photo: Path, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(photo.read_bytes())
    with pytest.raises(FileError, match=r"results of 2 pictures; name one, such as .*a\.json"):
        read_saved(tmp_path)


def test_a_network_without_parameters_has_nothing_to_rig(photo: Path, tmp_path: Path, capsys) -> None:
    with np.load(photo.with_suffix(".npz")) as arrays:
        kept = {key: value for key, value in arrays.items() if key not in ("pose_matrix", "shape", "translation")}
    np.savez(tmp_path / "lixels.npz", **kept)
    assert cli.main(["rig", str(tmp_path / "lixels.npz"), "--out", str(tmp_path / "x.glb")]) == 1
    assert "no body parameters" in capsys.readouterr().err
    (person, _) = read_saved(tmp_path / "lixels.npz").people
    np.testing.assert_array_equal(person.track.joints[0], kept["lixel_joints"][0])
    assert person.track.params is None
