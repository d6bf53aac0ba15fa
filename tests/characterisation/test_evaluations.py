"""`train` and `evaluate --data` on every benchmark: keys and values of their files.

The networks for SMPL and MANO are small and have random weights. Their meshes are useless, but the numbers must stay
the same.
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
from i2l_meshnet.skeletons import COCO

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
    """The tiny datasets, one dataset in SURREAL's format, and one in our own format with the same images."""
    root = tmp_path_factory.mktemp("characterised") / "data"
    shutil.copytree(dataset_root, root)
    generator = np.random.default_rng(5)
    for name, split in (("SURREAL", "val"), ("Custom", "test")):
        annotations, images = [], []
        for number in range(3):
            joints = generator.normal((0, 0, 4 + 0.2 * number), 0.3, (24, 3))
            seen = joints[:, :2] / joints[:, 2:] * 300 + [160, 120]
            camera = {"focal": [300, 300], "princpt": [160, 120]}
            size = {"width": 320, "height": 240}
            images.append({"id": number, "file_name": f"{number}.jpg", **size, "cam_param": camera})
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
            image = root / name / ("images" if name == "Custom" else split) / f"{number}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(image), cv2.resize(example("standing_phone", 240), (320, 240)))
        content: dict[str, Any] = {"images": images, "annotations": annotations}
        path = root / name / f"{split}.json"
        if name == "Custom":
            content["categories"] = [{"keypoints": list(names), "skeleton": [[1, 2], [1, 3]]}]
            path = root / name / "annotations" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def networks(body_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints `body` and `hand`."""
    return {
        name: drawn_network(body, body_directory, tmp_path_factory.mktemp(name) / "drawn.safetensors")
        for name, body in {"body": "smpl", "hand": "mano"}.items()
    }


def results(out: Path) -> dict[str, Any]:
    found = folder(out)
    for name in ("metrics.json", "multiview.json"):
        if name in found:
            found[name].pop("seconds", None)
            # Notes are texts for people; their facts are in other keys.
            found[name]["notes"] = len(found[name].get("notes", []))
            found[name]["left_out"] = sorted(found[name].get("left_out", {}).values())
    return {name: content for name, content in found.items() if not name.endswith(".png")}


@pytest.mark.parametrize("kind", [pytest.param("body", marks=pytest.mark.slow), "hand"])
def test_a_short_training(
    kind: str,
    compare: Callable[..., None],
    data: Path,
    body_directory: Path,
    tmp_path: Path,
    networks: dict[str, Path],
) -> None:
    """Mixed 3D and 2D datasets, fit checks, targets of both stages: the losses of every step."""
    shared: list[object] = ["--data", data, "--out", tmp_path, "--body-dir", body_directory, "--device", "cpu"]
    shared += ["--backbone", "resnet18", "--crop", 64, "--batch", 4, "--no-tensorboard", "--log-every", 1]
    shared += ["--workers", 0, "--imagenet", "none"]
    meshnet("train", f"{kind}-lixel", *shared, "--end-epoch", 1)
    meshnet("train", f"{kind}-param", *shared, "--first-epoch", 1, "--end-epoch", 2, "--start", networks[kind])
    for stage, rows in folder(tmp_path / "log").items():
        for row in rows:
            row.pop("images_per_second", None)
        compare(f"train_{kind}_{stage.removesuffix('.csv')}", rows, LOSSES[stage])


BODIES = ("Human36M", "Human36M --gt-root", "PW3D", "MSCOCO", "SURREAL", "Custom")
HANDS = ("FreiHAND", "FreiHAND --published", "FreiHAND --split train --gt-root")


@pytest.mark.parametrize("options", [*(pytest.param(options, marks=pytest.mark.slow) for options in BODIES), *HANDS])
def test_published_sets(
    options: str,
    compare: Callable[..., None],
    networks: dict[str, Path],
    data: Path,
    body_directory: Path,
    tmp_path: Path,
) -> None:
    weights = networks["hand" if options in HANDS else "body"]
    given = ("--weights", weights, "--root", data, "--body-dir", body_directory, "--device", "cpu")
    meshnet("evaluate", "--data", *options.split(), *given, "--out", tmp_path, "--pictures", 1, "--no-plots")
    compare(f"evaluate_{options.replace(' --', '_').replace(' ', '_')}", results(tmp_path), TOLERANCES)


# The following tests use the default network.
PIXELS = [
    Tolerance(r"\.jpg/means", 4.0),
    # PCK of few people has large steps.
    Tolerance(r"pck", 0.05),
    Tolerance(".*", 0.5, 0.01),
]


@pytest.mark.slow
def test_another_body_than_the_benchmarks(
    compare: Callable[..., None], data: Path, body_directory: Path, tmp_path: Path
) -> None:
    """The default network (Anny) on 3DPW: joints with the same names."""
    given = ("--root", data, "--body-dir", body_directory, "--device", "cpu", "--batch-size", 2)
    meshnet("evaluate", "--data", "PW3D", *given, "--samples", 3, "--out", tmp_path, "--pictures", 0, "--no-plots")
    compare("evaluate_PW3D_anny", results(tmp_path), PIXELS)


def test_keypoints_of_photos(compare: Callable[..., None], tmp_path: Path) -> None:
    names = [name.replace("L_", "left_").replace("R_", "right_").lower() for name in COCO.joints[:17]]
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
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": [[16, 14]]}],
    }
    (tmp_path / "people.json").write_text(json.dumps(content))
    given = ("--annotations", tmp_path / "people.json", "--images", tmp_path / "images", "--device", "cpu")
    meshnet("evaluate", "--data", "coco-keypoints", *given, "--out", tmp_path / "out")
    compare("evaluate_coco-keypoints", results(tmp_path / "out"), PIXELS)


def test_held_out_pictures(compare: Callable[..., None], tmp_path: Path) -> None:
    """A shard of two images whose ground truth is an upright body, in the format of `synthesize pictures`."""
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
    """Write clips of a photo on a plane, filmed by four calibrated cameras, in Pose2Sim's layout.

    The plane is at z = 0 of the world (x right, y up, z towards the cameras, metres) and moves sideways between frames.
    Each frame is the photo transformed by the homography of the plane.
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
        rows, position = np.stack([right, np.cross(back, right), back]), back * 2.6
        values = " ".join(f'r{i + 1}{j + 1}="{float(rows[i, j])}"' for i in range(3) for j in range(3))
        where = " ".join(f'{axis}="{1000 * float(value)}"' for axis, value in zip("xyz", position, strict=True))
        entries.append(
            f'<camera serial="cam{view}"><fov_video left="0" right="{size[0] - 1}" top="0" bottom="{size[1] - 1}"/>'
            f'<transform {values} {where}/><intrinsic focalLengthU="{focal * 64}" focalLengthV="{focal * 64}" '
            f'centerPointU="{size[0] * 32}" centerPointV="{size[1] * 32}"/></camera>'
        )
        rotation = np.diag([1.0, -1.0, -1.0]) @ rows
        camera = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
        with av.open(path / "videos" / f"cam{view}.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for frame in range(frames):
                shift = -rotation @ (position - [0.02 * frame, 0, 0])
                homography = camera @ np.column_stack([rotation[:, 0], rotation[:, 1], shift]) @ to_plane
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
    # An empty cache: crops of earlier code must not be reused.
    monkeypatch.setenv("I2L_MESHNET_CACHE", str(tmp_path / "cache"))
    meshnet("evaluate", "--data", "real-multiview", "--every", 1, "--device", "cpu", "--out", tmp_path / "out")
    compare("evaluate_real-multiview", results(tmp_path / "out"), PIXELS)
