"""`train` and `evaluate --data` on every benchmark: keys and values of what they write.

The networks for SMPL and MANO have a hundredth of their size and weights that are drawn. Their meshes are of no use:
all that counts is that the numbers stay the same.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from golden import Tolerance
from scenes import example
from surfaces import asset, drawn_network, meshnet, pretend_assets, slim_networks
from written import folder

from i2l_meshnet import load_body

# Millimetres, percents, metres. A processor without AVX2 gives the same to 0.001 mm.
TOLERANCES = [
    Tolerance(r"\.jpg/means", 2.0),
    Tolerance(r"pred\.json", 1e-4, 1e-3),
    Tolerance(".*", 0.02, 2e-4),
]
# After the lixel stage's first step, Adam amplifies rounding; the parameter stage's regressor hardly does.
LOSSES = {
    "lixel.csv": [Tolerance("^/0/", 1e-5, 1e-4), Tolerance(".*", 0.1, 0.1)],
    "param.csv": [Tolerance(".*", 1e-4, 2e-3)],
}


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    with slim_networks():
        yield


@pytest.fixture(scope="module")
def data(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data sets, and one in SURREAL's and one in our own format with the same pictures."""
    root = tmp_path_factory.mktemp("characterised") / "data"
    shutil.copytree(dataset_root, root)
    generator = np.random.default_rng(5)
    for name, split in (("SURREAL", "val"), ("Custom", "test")):
        annotations, images = [], []
        for number in range(3):
            joints = generator.normal((0, 0, 4 + 0.2 * number), 0.3, (24, 3))
            seen = joints[:, :2] / joints[:, 2:] * 300 + [160, 120]
            camera = {"focal": [300, 300], "princpt": [160, 120]}
            images.append(
                {"id": number, "file_name": f"{number}.jpg", "width": 320, "height": 240, "cam_param": camera}
            )
            smpl = {
                "pose": generator.normal(0, 0.2, 72).tolist(),
                "shape": generator.normal(0, 0.5, 10).tolist(),
                "trans": [0.1, 0.2, 4 + 0.2 * number],
                "gender": ("neutral", "male", "female")[number],
            }
            low, high = seen.min(0), seen.max(0)
            annotation: dict[str, Any] = {"id": number, "image_id": number, "smpl_param": smpl}
            annotation["bbox"] = [*low.tolist(), *(high - low).tolist()]
            annotation |= {"joint_img": seen.tolist(), "joint_cam": joints.tolist()}
            if name == "Custom":
                names = ("Pelvis", "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle", "Head_top")
                flags = np.concatenate([seen[: len(names)], np.full((len(names), 1), 2)], 1)
                annotation |= {"keypoints": flags.flatten().tolist(), "keypoints_cam": joints[: len(names)].tolist()}
            annotations.append(annotation)
            place = root / name / ("images" if name == "Custom" else split) / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(place), cv2.resize(example("standing_phone", 240), (320, 240)))
        content: dict[str, Any] = {"images": images, "annotations": annotations}
        path = root / name / f"{split}.json"
        if name == "Custom":
            content["categories"] = [{"keypoints": list(names), "skeleton": [[1, 2], [1, 3]]}]
            path = root / name / "annotations" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def body_weights(body_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_network("smpl", body_directory, tmp_path_factory.mktemp("body") / "drawn.safetensors")


@pytest.fixture(scope="module")
def hand_weights(body_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_network("mano", body_directory, tmp_path_factory.mktemp("hand") / "drawn.safetensors")


def results(out: Path) -> dict[str, Any]:
    found = folder(out)
    for name in ("metrics.json", "multiview.json"):
        if name in found:
            found[name].pop("seconds", None)
            # Notes are texts for people; what they say is in other keys.
            found[name]["notes"] = len(found[name].get("notes", []))
            found[name]["left_out"] = sorted(found[name].get("left_out", {}).values())
    return {name: content for name, content in found.items() if not name.endswith(".png")}


@pytest.mark.parametrize("kind", [pytest.param("body", marks=pytest.mark.slow), "hand"])
def test_a_moment_of_training(
    kind: str,
    compare: Callable[..., None],
    data: Path,
    body_directory: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Mixed 3D and 2D sets, fits that are checked, targets of both stages: the losses of every step."""
    weights: Path = request.getfixturevalue(f"{kind}_weights")
    shared: list[object] = ["--data", data, "--out", tmp_path, "--body-dir", body_directory, "--device", "cpu"]
    shared += ["--backbone", "resnet18", "--crop", 64, "--batch", 4, "--no-tensorboard", "--log-every", 1]
    shared += ["--workers", 0, "--imagenet", "none"]
    meshnet("train", f"{kind}-lixel", *shared, "--end-epoch", 1)
    meshnet("train", f"{kind}-param", *shared, "--first-epoch", 1, "--end-epoch", 2, "--start", weights)
    for stage, rows in folder(tmp_path / "log").items():
        for row in rows:
            row.pop("images_per_second", None)
        compare(f"train_{kind}_{stage.removesuffix('.csv')}", rows, LOSSES[stage])


@pytest.mark.slow
@pytest.mark.parametrize("options", ["Human36M", "Human36M --gt-root", "PW3D", "MSCOCO", "SURREAL", "Custom"])
def test_bodies(
    options: str, compare: Callable[..., None], body_weights: Path, data: Path, body_directory: Path, tmp_path: Path
) -> None:
    given = ("--weights", body_weights, "--root", data, "--body-dir", body_directory, "--device", "cpu")
    meshnet("evaluate", "--data", *options.split(), *given, "--out", tmp_path, "--pictures", 1, "--no-plots")
    compare(f"evaluate_{options.replace(' --', '_')}", results(tmp_path), TOLERANCES)


@pytest.mark.parametrize("options", ["FreiHAND", "FreiHAND --published", "FreiHAND --split train --gt-root"])
def test_hands(
    options: str, compare: Callable[..., None], hand_weights: Path, data: Path, body_directory: Path, tmp_path: Path
) -> None:
    given = ("--weights", hand_weights, "--root", data, "--body-dir", body_directory, "--device", "cpu")
    meshnet("evaluate", "--data", *options.split(), *given, "--out", tmp_path, "--pictures", 1, "--no-plots")
    compare(f"evaluate_{options.replace(' --', '_').replace(' ', '_')}", results(tmp_path), TOLERANCES)


# What follows is of the default network.
PIXELS = [
    Tolerance(r"\.jpg/means", 4.0),
    # One person is a step of the shares of joints within a distance.
    Tolerance(r"pck", 0.05),
    Tolerance(".*", 0.5, 0.01),
]


@pytest.mark.slow
def test_another_body_than_the_benchmarks(
    compare: Callable[..., None], data: Path, body_directory: Path, tmp_path: Path
) -> None:
    """The default network's Anny on 3DPW: joints of the same names."""
    given = ("--root", data, "--body-dir", body_directory, "--device", "cpu", "--batch-size", 2)
    meshnet("evaluate", "--data", "PW3D", *given, "--samples", 3, "--out", tmp_path, "--pictures", 0, "--no-plots")
    compare("evaluate_PW3D_anny", results(tmp_path), PIXELS)


def test_keypoints_of_photos(compare: Callable[..., None], tmp_path: Path) -> None:
    names = "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist"
    names += " right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
    people, images = [], []
    (tmp_path / "images").mkdir()
    for number, name in enumerate(("standing_phone", "standing_garden")):
        picture = example(name, 400)
        assert cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), picture)
        height, width = picture.shape[:2]
        images.append({"id": number, "file_name": f"{name}.png", "width": width, "height": height})
        points = np.random.default_rng(number).uniform(0.3, 0.7, (17, 2)) * [width, height]
        flags = np.tile([2, 2, 1, 0], 5)[:17, None]
        box = [0.15 * width, 0.05 * height, 0.7 * width, 0.9 * height]
        person = {"id": number, "image_id": number, "bbox": box, "iscrowd": 0, "category_id": 1}
        people.append({**person, "keypoints": np.concatenate([points, flags], 1).flatten().tolist()})
    content = {
        "images": images,
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": names.split(), "skeleton": [[16, 14]]}],
    }
    (tmp_path / "people.json").write_text(json.dumps(content))
    given = ("--annotations", tmp_path / "people.json", "--images", tmp_path / "images", "--device", "cpu")
    meshnet("evaluate", "--data", "coco-keypoints", *given, "--out", tmp_path / "out")
    found = results(tmp_path / "out")
    compare("evaluate_coco-keypoints", found, PIXELS)


def test_held_out_pictures(compare: Callable[..., None], tmp_path: Path) -> None:
    """Two pictures whose truth is an upright body: as shards, the format that `synthesize pictures` writes."""
    side, jpegs = 256, []
    for name in ("standing_phone", "standing_jacket"):
        picture = example(name, side)
        canvas = np.full((side, side, 3), 90, np.uint8)
        canvas[:, : picture.shape[1]] = picture
        jpegs.append(cv2.imencode(".jpg", canvas)[1].reshape(-1))
    pose = np.tile(np.eye(3, dtype=np.float32), (2, len(load_body("anny").bones), 1, 1))
    pose[:, 0] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    np.savez(
        tmp_path / "val_00000.npz",
        jpeg=np.concatenate(jpegs),
        start=np.cumsum([0, *map(len, jpegs)]),
        box=np.array([[10, 5, 150, 245], [12, 6, 140, 240]], np.float32),
        focal=np.full((2, 2), 380, np.float32),
        center=np.full((2, 2), 127.5, np.float32),
        pose=pose,
        shape=np.array([[0.2, 0.7, 0.5, 0.5, 0.5, 0.5], [0.8, 0.65, 0.4, 0.6, 0.3, 0.5]], np.float32),
        translation=np.array([[-0.3, 0.1, 2.6], [-0.3, 0.1, 2.7]], np.float32),
    )
    given = ("--root", tmp_path, "--device", "cpu", "--pictures", 1)
    meshnet("evaluate", "--data", "synthetic-pictures", *given, "--out", tmp_path / "out")
    compare("evaluate_synthetic-pictures", results(tmp_path / "out"), PIXELS)


def billboard(path: Path, frames: int = 3) -> None:
    """A photo of a person on a plane, filmed by four calibrated cameras, in Pose2Sim's layout.

    Each camera's picture is the photo under the homography of the plane, which is at z = 0 of the world (z up to the
    front of the picture, y up in it, metres); the plane moves sideways a little from frame to frame.
    """
    photo, size, focal = example("standing_garden", 600), (360, 360), 420.0
    high = 1.9
    to_plane = np.diag([high / photo.shape[0], -high / photo.shape[0], 1.0])
    to_plane[:2, 2] = [-photo.shape[1] / photo.shape[0] * high / 2, high / 2]
    (path / "calibration").mkdir(parents=True)
    (path / "videos").mkdir()
    entries = []
    for view, angle in enumerate((-0.45, -0.15, 0.15, 0.45)):
        back = np.array([np.sin(angle), 0.05, np.cos(angle)])
        back /= np.linalg.norm(back)
        right = np.cross([0, 1.0, 0], back)
        right /= np.linalg.norm(right)
        rows, place = np.stack([right, np.cross(back, right), back]), back * 2.6
        values = (
            " ".join(f'r{i + 1}{j + 1}="{rows[i, j]!r}"' for i in range(3) for j in range(3))
            .replace("np.float64(", "")
            .replace(")", "")
        )
        where = " ".join(f'{axis}="{1000 * float(value)}"' for axis, value in zip("xyz", place, strict=True))
        entries.append(
            f'<camera serial="cam{view}"><fov_video left="0" right="{size[0] - 1}" top="0" bottom="{size[1] - 1}"/>'
            f'<transform {values} {where}/><intrinsic focalLengthU="{focal * 64}" focalLengthV="{focal * 64}" '
            f'centerPointU="{size[0] * 32}" centerPointV="{size[1] * 32}"/></camera>'
        )
        turn = np.diag([1.0, -1.0, -1.0]) @ rows
        camera = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
        with av.open(path / "videos" / f"cam{view}.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for frame in range(frames):
                shift = -turn @ (place - [0.02 * frame, 0, 0])
                homography = camera @ np.column_stack([turn[:, 0], turn[:, 1], shift]) @ to_plane
                pixels = cv2.warpPerspective(photo, homography, size, flags=cv2.INTER_AREA, borderValue=(90, 90, 90))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
            container.mux(stream.encode())
    text = "<calibration><cameras>" + "".join(entries) + "</cameras></calibration>"
    (path / "calibration" / "Calib.qca.txt").write_text(text)


@pytest.mark.slow
def test_real_people_in_several_views(
    compare: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: asset(name) for name in ("detector", "rtmpose")}
    billboard(tmp_path / "clips" / "Demo_Billboard")
    pretend_assets(monkeypatch, {**known, "multiview": tmp_path / "clips"})
    # Empty: what was cut before the code changed must not be found again.
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))
    given = ("--every", 1, "--device", "cpu", "--out", tmp_path / "out")
    meshnet("evaluate", "--data", "real-multiview", *given)
    first = results(tmp_path / "out")
    compare("evaluate_real-multiview", first, PIXELS)
