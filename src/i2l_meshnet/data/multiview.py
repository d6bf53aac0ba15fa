"""Real people filmed by four calibrated cameras: the demo clips of Pose2Sim as a 3D benchmark.

The clips (one man; several people in the same hall) have no 3D ground truth. The reference is triangulated from 2D
detections in all views, so it shares the detector's bias in joint positions.
"""

import contextlib
import dataclasses
import itertools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from i2l_meshnet.data.triangulation import (
    PosedCamera,
    associate,
    refine_orientations,
    triangulate,
    triangulate_best_views,
)
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, invert_affine, transform_points, warp_image
from i2l_meshnet.io import atomic_path, inside, read_arrays, read_bytes, reading, require_shapes
from i2l_meshnet.skeletons import HALPE26
from i2l_meshnet.tensors import TensorDataclass
from i2l_meshnet.videos import decode_frames, open_video

JOINTS = tuple(
    f"{side}_{part}" for part in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle") for side in ("L", "R")
)
"""The scored joints: the joints of the detector that agree best with a body's."""
HIPS = (JOINTS.index("L_Hip"), JOINTS.index("R_Hip"))
KEYPOINT_ROWS = tuple(HALPE26.index(joint) for joint in JOINTS)
TRUNK_ROWS = tuple(HALPE26.index(f"{side}_{part}") for part in ("Hip", "Shoulder") for side in "LR")
SUBPIXEL = 64
"""The calibration file gives focal lengths and centres in 64ths of a pixel."""
REFETCH = "run `i2l-meshnet data fetch real-multiview` again"
MAX_STEP = 0.5
"""Maximum motion of a person's hips and shoulders between two sampled frames, metres."""

Detect = Callable[[UInt8[np.ndarray, "h w 3"]], tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n"]]]
"""RGB image to boxes (x, y, width, height; pixels) and scores."""
Estimate = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b 26 3"]]
"""RGB crops in [0, 1] to keypoints (x, y in crop pixels, confidence)."""


@dataclasses.dataclass(frozen=True)
class MultiviewClip:
    """Synchronous videos of calibrated cameras (batch axis: view).

    distortion: OpenCV's k1, k2, p1, p2 of each lens.
    """

    name: str
    cameras: PosedCamera
    distortion: Float[np.ndarray, "v 4"]
    videos: tuple[Path, ...]

    def frames(self, every: int) -> Iterator[tuple[int, list[UInt8[np.ndarray, "h w 3"]]]]:
        """Number and RGB images of all views of every `every`-th frame. Stops at the end of the shortest video.

        Raises FileError for videos that are damaged.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(reading(self.videos[0].parent, "a folder of readable videos", REFETCH))
            views = [decode_frames(stack.enter_context(open_video(video))) for video in self.videos]
            for number, frames in enumerate(zip(*views, strict=False)):
                if number % every == 0:
                    yield number, [frame.to_ndarray(format="rgb24") for frame in frames]

    def undistorted(self, view: int, pixels: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Correct pixels of a view for lens distortion, in double precision."""
        matrix = np.eye(3)
        matrix[[0, 1], [0, 1]] = self.cameras.intrinsics.focal[view]
        matrix[:2, 2] = self.cameras.intrinsics.center[view]
        flat = pixels.double().reshape(-1, 1, 2).numpy()
        if not len(flat):
            return pixels.double()
        straight = cv2.undistortPoints(flat, matrix, self.distortion[view], P=matrix)
        return torch.from_numpy(straight).reshape(pixels.shape)


@dataclasses.dataclass(frozen=True)
class MultiviewSamples(TensorDataclass):
    """One person in one view of one frame, with the reference in that camera's frame (metres).

    person: index of the person, the same in all frames. box: x, y, width, height, pixels. keypoints: x, y in
    undistorted image pixels, confidence. joints: triangulated from all views; joints_without: from the other views.
    error: median reprojection error of the person's joints, pixels.
    """

    view: Int[Tensor, "*b"]
    frame: Int[Tensor, "*b"]
    person: Int[Tensor, "*b"]
    box: Float[Tensor, "*b 4"]
    camera: Camera
    keypoints: Float[Tensor, "*b 26 3"]
    joints: Float[Tensor, "*b 12 3"]
    joints_without: Float[Tensor, "*b 12 3"]
    error: Float[Tensor, "*b"]

    def crop(self, crop_size: tuple[int, int]) -> Crop:
        """Each sample's crop of (height, width)."""
        return crop_around(self.box, crop_size)

    @property
    def root_depth(self) -> Float[Tensor, "*b"]:
        """Reference depth of the mean of the hips, metres."""
        return self.joints[..., HIPS, 2].mean(-1)


def open_clip(folder: Path) -> MultiviewClip:
    """Open a clip in the layout of Pose2Sim's demo: `calibration/Calib.qca.txt` and `videos/cam0N.mp4`."""
    calibration = folder / "calibration" / "Calib.qca.txt"
    with reading(calibration, "a calibration of cameras", REFETCH):
        return _read_clip(folder, ElementTree.fromstring(read_bytes(calibration)))


def _read_clip(folder: Path, root: ElementTree.Element) -> MultiviewClip:
    """Raises FileError for a video, other errors for a missing or wrong value of the calibration."""
    intrinsics, distortion, rotation, translation, videos = [], [], [], [], []
    for entry in root.iter("camera"):
        video = folder / "videos" / inside(f"{entry.attrib['serial']}.mp4")
        with reading(video, "a video", REFETCH), open_video(video) as container:
            width = container.streams.video[0].width
        lens, pose, view = (_attributes(entry, tag) for tag in ("intrinsic", "transform", "fov_video"))
        # Two videos are a few columns narrower than their calibration: cut evenly on both sides.
        cut = (view["right"] - view["left"] + 1 - width) / 2
        focal = [lens["focalLengthU"] / SUBPIXEL, lens["focalLengthV"] / SUBPIXEL]
        intrinsics.append([focal, [lens["centerPointU"] / SUBPIXEL - cut, lens["centerPointV"] / SUBPIXEL]])
        names = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1", "tangentalDistortion2")
        distortion.append([lens.get(name, 0.0) for name in names])
        # Qualisys' cameras look along -z with y up; rotating by 180° about x gives ours. Positions are in mm.
        matrix = np.diag([1.0, -1.0, -1.0]) @ [[pose[f"r{row}{column}"] for column in (1, 2, 3)] for row in (1, 2, 3)]
        rotation.append(matrix)
        translation.append(-matrix @ [pose[axis] / 1000 for axis in "xyz"])
        videos.append(video)
    if not videos:
        raise ValueError("it names no camera")
    if not all(np.isfinite(values).all() for values in (intrinsics, distortion, rotation, translation)):
        raise ValueError("it has values that are not numbers")
    focal, center = torch.tensor(intrinsics).unbind(1)
    cameras = PosedCamera(
        Camera(focal, center), torch.from_numpy(np.stack(rotation)), torch.from_numpy(np.stack(translation))
    )
    return MultiviewClip(folder.name, cameras.to(dtype=torch.float64), np.array(distortion), tuple(videos))


def build_samples(
    clip: MultiviewClip,
    detect: Detect,
    estimate: Estimate,
    every: int = 4,
    smallest_score: float = 0.5,
    refine: bool = True,
) -> MultiviewSamples:
    """Detect the people in each view, match them between views by geometry, and triangulate their joints.

    estimate: gets crops of 256x192 pixels (height x width). People in fewer than three views are left out. refine:
    first adjust the cameras' orientations to the detections of the whole clip. The clips' orientations have an error of
    about half a degree, which the leave-one-out error shows (docs/notes/default-model.md).
    """
    seen: list[_PersonInViews] = []
    for number, images in clip.frames(every):
        boxes, keypoints = [], []
        for view, image in enumerate(images):
            found, score = detect(image)
            box = torch.from_numpy(np.asarray(found, np.float32).reshape(-1, 4)[np.asarray(score) >= smallest_score])
            boxes.append(box)
            points = _estimate_keypoints(image, box, estimate).double()
            keypoints.append(torch.cat([clip.undistorted(view, points[..., :2]), points[..., 2:]], -1))
        for person, member in enumerate(associate(clip.cameras, keypoints)):
            seen.append(_collect(number, person, member, boxes, keypoints))
    if not seen:
        raise FileError(f"no person was found in three views of {clip.name}")
    cameras = clip.cameras
    whole = [person for person in seen if bool(person.present.all())]
    if refine and whole:
        points = torch.cat([person.keypoints[:, KEYPOINT_ROWS] for person in whole], 1)
        cameras = refine_orientations(cameras, points[..., :2], points[..., 2])
    return MultiviewSamples.concatenate([_person_samples(cameras, person) for person in _tracked(cameras, seen)])


def read_crops(
    clip: MultiviewClip, samples: MultiviewSamples, crop_size: tuple[int, int], every: int = 4
) -> UInt8[Tensor, "b 3 h w"]:
    """Cut the samples' RGB crops from the videos. every: as in `build_samples`."""
    affine = samples.crop(crop_size).affine
    crops = torch.zeros(len(affine), 3, *crop_size, dtype=torch.uint8)
    for number, images in clip.frames(every):
        for index in torch.nonzero(samples.frame == number)[:, 0].tolist():
            crop = warp_image(images[int(samples.view[index])], affine[index], crop_size)
            crops[index] = torch.from_numpy(crop).permute(2, 0, 1)
    return crops


def save_samples(samples: MultiviewSamples, path: Path) -> None:
    """Write samples as .npz."""
    arrays: dict[str, np.ndarray] = {
        field.name: getattr(samples, field.name).numpy()
        for field in dataclasses.fields(samples)
        if field.name != "camera"
    }
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays, focal=samples.camera.focal.numpy(), center=samples.camera.center.numpy())  # type: ignore[arg-type]


def load_samples(path: Path) -> MultiviewSamples:
    """Read a file of `save_samples`."""
    with reading(path, "a file of multi-view samples", "delete it; it will be made again"):
        tensors = {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}
        camera = Camera(tensors.pop("focal"), tensors.pop("center"))
        samples = MultiviewSamples(camera=camera, **tensors)
        require_shapes(samples)
        if not bool((samples.box[..., 2:] > 0).all()):
            raise ValueError("one of its boxes has no area")
        return samples


def _attributes(entry: ElementTree.Element, tag: str) -> dict[str, float]:
    """The numeric attributes of a camera's element."""
    element = entry.find(tag)
    if element is None:
        raise ValueError(f"camera {entry.attrib.get('serial')} has no {tag}")
    values: dict[str, float] = {}
    for name, text in element.attrib.items():
        with contextlib.suppress(ValueError):
            values[name] = float(text)
    return values


def crop_around(box: Float[Tensor, "*b 4"], crop_size: tuple[int, int]) -> Crop:
    """The published rule for boxes, in an image without a right and a bottom border.

    It removes a pixel from each side and moves boxes at the left and top border inside. Such a crop differs by up to
    13 pixels from `i2l_lab`'s training crops, which have no `clip_to`. The kept reference and its scores depend on it.
    """
    return Crop.around(box, crop_size, clip_to=(math.inf, math.inf))


def _estimate_keypoints(
    image: UInt8[np.ndarray, "h w 3"], boxes: Float[Tensor, "p 4"], estimate: Estimate
) -> Float[Tensor, "p 26 3"]:
    """Keypoints of the people in `boxes`, in image pixels."""
    if len(boxes) == 0:
        return torch.zeros(0, 26, 3)
    affine = crop_around(boxes, (256, 192)).affine
    crops = np.stack([warp_image(image, row, (256, 192)) for row in affine])
    with torch.inference_mode():
        found = estimate(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
    return torch.cat([transform_points(invert_affine(affine), found[..., :2]), found[..., 2:]], -1)


@dataclasses.dataclass(frozen=True)
class _PersonInViews:
    """One person of a frame in all views. Values are zero in views without the person."""

    frame: int
    number: int
    present: Bool[Tensor, "v"]
    box: Float[Tensor, "v 4"]
    keypoints: Float[Tensor, "v 26 3"]


def _collect(
    frame: int, number: int, member: Int[Tensor, "v"], boxes: list[Tensor], keypoints: list[Tensor]
) -> _PersonInViews:
    present = member >= 0
    box = torch.zeros(len(member), 4)
    points = torch.zeros(len(member), 26, 3, dtype=torch.float64)
    for view in torch.nonzero(present)[:, 0].tolist():
        box[view] = boxes[view][member[view]]
        points[view] = keypoints[view][member[view]].double()
    return _PersonInViews(frame, number, present, box, points)


def _tracked(cameras: PosedCamera, people: list[_PersonInViews]) -> list[_PersonInViews]:
    """The people with numbers that stay the same from frame to frame.

    People are matched to the nearest last known position, within `MAX_STEP`.
    """
    tracked: list[_PersonInViews] = []
    positions: dict[int, Tensor] = {}
    unused = itertools.count()
    for _, group in itertools.groupby(people, key=lambda person: person.frame):
        members = list(group)
        current = torch.stack([_trunk_position(cameras, person) for person in members])
        known: dict[int, int] = {}
        if positions:
            distance = torch.cdist(current, torch.stack(list(positions.values()))).numpy()
            pairs = zip(*linear_sum_assignment(distance), strict=True)
            known = {row: list(positions)[column] for row, column in pairs if distance[row, column] < MAX_STEP}
        for row, person in enumerate(members):
            number = known[row] if row in known else next(unused)
            positions[number] = current[row]
            tracked.append(dataclasses.replace(person, number=number))
    return tracked


def _trunk_position(cameras: PosedCamera, person: _PersonInViews) -> Float[Tensor, "3"]:
    """The middle of a person's hips and shoulders in the world, metres."""
    seen = person.keypoints[person.present][:, TRUNK_ROWS]
    return triangulate(cameras[person.present], seen[..., :2], seen[..., 2]).mean(0)


def _person_samples(cameras: PosedCamera, person: _PersonInViews) -> MultiviewSamples:
    views = torch.nonzero(person.present)[:, 0].tolist()
    pixels, confidence = person.keypoints[:, KEYPOINT_ROWS, :2], person.keypoints[:, KEYPOINT_ROWS, 2]
    points, errors = triangulate_best_views(cameras, pixels, confidence, person.present)
    without = []
    for view in views:
        others = [other for other in views if other != view]
        without.append(triangulate(cameras[others], pixels[others], confidence[others]))
    count = len(views)
    seen_from = cameras[views]
    return MultiviewSamples(
        view=torch.tensor(views),
        frame=torch.full((count,), person.frame),
        person=torch.full((count,), person.number),
        box=person.box[views],
        camera=seen_from.intrinsics.to(dtype=torch.float32),
        keypoints=person.keypoints[views].float(),
        joints=seen_from.to_camera(points.expand(count, -1, -1)).float(),
        joints_without=seen_from.to_camera(torch.stack(without)).float(),
        error=errors.nanmedian().expand(count).float(),
    )
