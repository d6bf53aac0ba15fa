"""Score the hand model on images with annotated hands.

    python -m i2l_lab.tools.score_hands --data DATA [--show OUT]

DATA has the folders freihand, rhd and interhand with images and test annotations in COCO's format, as in MMPose's tests
(research-only, not shipped). The hand is detected in the whole image; only the camera of the annotation is used. For
the lixel mesh, the parametric mesh and the landmarks it prints the distance of the projected joints from the annotated
joints, without and with alignment in the image (PA), in percent of the longer side of the joints' box. With 3D joints
it also prints PA-MPJPE in millimetres. `--show` writes overlays.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from i2l_meshnet.geometry.alignment import similarity_align
from i2l_meshnet.prediction.hands import HandPredictor
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.overlay import draw_overlay
from i2l_meshnet.prediction.results import MeshKind, Prediction

TIP_FIRST = [20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16]
"""Rows of MANO's joints in InterHand's order (fingers from the tip, the wrist last). RHD has the wrist first."""
RHD_ORDER = [0, *(row + 1 for row in TIP_FIRST[1:])]


@dataclasses.dataclass(frozen=True)
class AnnotatedHand:
    """joints: pixels. camera: fx, fy, cx, cy, if known. positions: of the joints, metres, camera frame, if known."""

    path: Path
    side: str | None
    joints: Float[Tensor, "21 2"]
    valid: Bool[Tensor, "21"]
    camera: tuple[float, float, float, float] | None = None
    positions: Float[Tensor, "21 3"] | None = None


def read_coco(folder: Path, name: str, order: list[int]) -> list[AnnotatedHand]:
    """The available images of FreiHAND or RHD."""
    content = json.loads((folder / name).read_text())
    images = {image["id"]: image for image in content["images"]}
    hands = []
    for entry in content["annotations"]:
        image: dict[str, Any] = images[entry["image_id"]]
        path = folder / image["file_name"]
        if not path.exists():
            continue
        points = torch.tensor(entry["keypoints"], dtype=torch.float32).reshape(21, 3)[order]
        camera, positions = None, None
        if "cam_param" in image:
            camera = (*image["cam_param"]["focal"], *image["cam_param"]["princpt"])
        if "joint_cam" in entry:
            positions = torch.tensor(entry["joint_cam"], dtype=torch.float32)[order] / 1000
        hands.append(AnnotatedHand(path, entry.get("hand_type"), points[:, :2], points[:, 2] > 0, camera, positions))
    return hands


def read_interhand(folder: Path) -> list[AnnotatedHand]:
    """The available images of InterHand2.6M with one hand."""
    data, cameras, positions = (
        json.loads((folder / f"test_interhand2.6m_{part}.json").read_text()) for part in ("data", "camera", "joint_3d")
    )
    types = {entry["image_id"]: entry["hand_type"] for entry in data["annotations"]}
    hands = []
    for image in data["images"]:
        path, side = folder / image["file_name"], types[image["id"]]
        if not path.exists() or side not in ("left", "right"):
            continue
        capture, name = cameras[str(image["capture"])], image["camera"]
        entry = positions[str(image["capture"])][str(image["frame_idx"])]
        rows = torch.tensor(TIP_FIRST) + (21 if side == "left" else 0)
        world = torch.tensor(entry["world_coord"], dtype=torch.float32)[rows]
        turn, origin = torch.tensor(capture["camrot"][name]), torch.tensor(capture["campos"][name])
        seen = (world - origin) @ turn.T / 1000
        focal, center = torch.tensor(capture["focal"][name]), torch.tensor(capture["princpt"][name])
        flat = seen[:, :2] / seen[:, 2:] * focal + center
        valid = torch.tensor(entry["joint_valid"], dtype=torch.bool).flatten()[rows]
        camera = (*focal.tolist(), *center.tolist())
        hands.append(AnnotatedHand(path, side, flat, valid, camera, seen))
    return hands


def scores(hand: AnnotatedHand, found: Prediction) -> dict[str, list[float]]:
    """For each kind: distance and PA distance in percent of the hand, PA-MPJPE in mm (NaN if unknown)."""
    size = (hand.joints[hand.valid].amax(0) - hand.joints[hand.valid].amin(0)).max()
    camera = found.camera
    meshes = {"lixel": found.lixel_mesh.joints}
    if found.parametric_mesh is not None:
        meshes["param"] = found.parametric_mesh.joints
    flat = {kind: camera.project(joints) for kind, joints in meshes.items()}
    if found.keypoints is not None:
        flat["landmarks"] = found.keypoints[:, :2]
    result = {}
    for kind, points in flat.items():
        points, truth = points[hand.valid], hand.joints[hand.valid]
        plain = (points - truth).norm(dim=-1).mean() / size * 100
        aligned = (similarity_align(points, truth) - truth).norm(dim=-1).mean() / size * 100
        spatial = float("nan")
        if hand.positions is not None and kind in meshes:
            positions = hand.positions[hand.valid]
            moved = similarity_align(meshes[kind][hand.valid], positions)
            spatial = float((moved - positions).norm(dim=-1).mean() * 1000)
        result[kind] = [float(plain), float(aligned), spatial]
    return result


def overlays(pixels: UInt8[np.ndarray, "h w 3"], found: Prediction, side: int = 500) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image around the hand, without a mesh and with each mesh: squares of `side` pixels, BGR."""
    x, y, w, h = found.box.tolist()
    corner, zoom = np.array([x + (w - max(w, h)) / 2, y + (h - max(w, h)) / 2]), side / max(w, h)
    affine = np.array([[zoom, 0, -zoom * corner[0]], [0, zoom, -zoom * corner[1]]])
    large = cv2.warpAffine(pixels, affine, (side, side), flags=cv2.INTER_CUBIC)
    focal, center = found.camera.focal.double().numpy() * zoom, (found.camera.center.double().numpy() - corner) * zoom
    kinds: tuple[MeshKind, ...] = ("lixel", "param") if found.parametric_mesh is not None else ("lixel",)
    drawn = [draw_overlay(large, [found.surface(kind)], focal, center) for kind in kinds]
    return np.concatenate([large, *drawn], 1)[..., ::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of annotated images")
    parser.add_argument("--weights", type=Path, help="checkpoint of a hand network (default: the hand model)")
    parser.add_argument("--show", type=Path, help="folder for overlays")
    arguments = parser.parse_args()
    score(HandPredictor.load(arguments.weights, "cpu"), arguments.data, arguments.show)


def score(predictor: HandPredictor, data: Path, show: Path | None) -> None:
    """Print the scores of every annotated hand, and their means."""
    hands = read_coco(data / "freihand", "test_freihand.json", list(range(21)))
    hands += read_interhand(data / "interhand") + read_coco(data / "rhd", "test_rhd.json", RHD_ORDER)
    total: dict[str, list[list[float]]] = {}
    for hand in hands:
        answer = predictor(hand.path, intrinsics=Intrinsics(None, hand.camera, None))
        center = hand.joints[hand.valid].mean(0)
        near = sorted(answer, key=lambda found: float((found.joints_image.mean(0) - center).norm()))
        if not near:
            print(f"{hand.path.name}: not found")
            continue
        found = near[0]
        side = "" if hand.side in (None, found.side) else f", WRONG SIDE {found.side}"
        parts = []
        for kind, values in scores(hand, found).items():
            total.setdefault(kind, []).append(values)
            spatial = "" if np.isnan(values[2]) else f" {values[2]:.1f} mm"
            parts.append(f"{kind} {values[0]:.1f} % PA {values[1]:.1f} %{spatial}")
        print(f"{hand.path.name}{side}: " + "; ".join(parts))
        if show:
            show.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(show / f"{hand.path.stem}.png"), overlays(answer.pixels, found))
    for kind, rows in total.items():
        plain, aligned, spatial = np.array(rows).T
        known = spatial[np.isfinite(spatial)]
        line = f"mean of {len(rows)}, {kind}: {plain.mean():.1f} % of the hand, PA {aligned.mean():.1f} %"
        print(line + (f", PA-MPJPE {known.mean():.1f} mm ({len(known)})" if len(known) else ""))


if __name__ == "__main__":
    main()
