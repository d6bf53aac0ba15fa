"""From pictures to people: boxes, crops, one network pass for many people, and meshes placed in space."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body, BodyMesh
from i2l_meshnet.bodies.mirrored import MirroredBody
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, warp_image
from i2l_meshnet.models.exported import Runtime, load_ready
from i2l_meshnet.models.fitting import camera_params
from i2l_meshnet.models.loading import default_weights
from i2l_meshnet.models.memory import InParts
from i2l_meshnet.models.output import LixelNetwork, LixelOutput
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.boxes import PersonBox, as_box, require_inside
from i2l_meshnet.prediction.depth import MIN_DEPTH, solve_root_depth, solve_translation
from i2l_meshnet.prediction.detect import DEFAULT_THRESHOLD, PersonDetector, detected_people
from i2l_meshnet.prediction.images import Photo, read_photo, to_rgb
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.results import PicturePrediction, Prediction

CONFIDENCE_GATE = 0.45
"""Mean keypoint confidence below which a prediction is called unreliable (docs/default-model.md)."""

NO_DETECTOR = (
    "the person detector has not been fetched, so each whole picture is taken as one person; "
    "fetch it with `i2l-meshnet assets detector`, or give boxes"
)

Picture = Path | str | np.ndarray | Image.Image


@dataclasses.dataclass(frozen=True)
class Subject:
    """A picture ready for the network: who is to be looked at, and through which camera.

    boxes_source: "given", "detector" or "whole picture". camera_source: "given", "exif" or "default".
    """

    photo: Photo
    file: str | None
    name: str
    people: tuple[PersonBox, ...]
    boxes_source: str
    camera: Camera
    camera_source: str


@runtime_checkable
class AddsHands(Protocol):
    """What gives people their hands."""

    network_facts: dict[str, Any]

    def add_hands(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        people: Sequence[Sequence[Prediction]],
        cameras: Sequence[Camera],
    ) -> list[list[Prediction]]:
        """The people of several pictures with their hands (`Prediction.hands`)."""
        ...


class MeshPredictor:
    """Finds people in pictures and gives each a mesh in space.

    The three lines: `predictor = MeshPredictor.load()`, `people = predictor("photo.jpg")`, `people.save("results")`.
    The same input gives the same numbers on the same machine; nothing is random.
    """

    def __init__(
        self,
        network: LixelNetwork,
        body: Body,
        detector: PersonDetector | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 16,
        network_facts: dict[str, Any] | None = None,
        hands: AddsHands | None = None,
    ) -> None:
        """network: on `device` and in evaluation mode. body: the one that it predicts; it is kept on the CPU.

        detector: without one, a picture that comes without boxes is taken as one person. batch_size: most people in
        one pass. network_facts: recorded with every result. hands: gives people their hands (`hands.HandPredictor`).
        """
        self.network, self.body, self.detector = network, body.cpu().eval(), detector
        self._run = InParts(network)
        self.device, self.batch_size = torch.device(device), batch_size
        self.network_facts = network_facts or {}
        self.hands = hands
        if hands is not None:
            self.network_facts = {**self.network_facts, "hands": hands.network_facts}
        # Of one-sided bodies: the left hand of a network that knows right ones.
        self._mirror_body = MirroredBody(self.body, f"{self.body.name}-left")
        rest = body(body.rest_params())
        self._area = _vertex_areas(rest.vertices, body.faces)
        self._bones = torch.tensor(body.skeleton.bone_indices)
        joints = body.joint_regressor @ rest.vertices
        self._bone_lengths = (joints[self._bones[:, 0]] - joints[self._bones[:, 1]]).norm(dim=-1)

    @classmethod
    def load(
        cls,
        weights: Path | str | None = None,
        device: str = "auto",
        body_directory: Path | str | None = None,
        detect: bool = True,
        batch_size: int = 16,
        score_threshold: float = DEFAULT_THRESHOLD,
        hands: AddsHands | None = None,
        precision: Precision = "fp32",
        runtime: Runtime | None = None,
    ) -> "MeshPredictor":
        """A predictor with the network that ships with the package, or with that of a file: a checkpoint, a published
        snapshot, or what `i2l-meshnet export` wrote.

        device: "cpu", "cuda", or "auto": a CUDA device where there is one. body_directory: where the licensed files
        of SMPL and MANO are, for networks that predict them. detect: whether to find people; warns (UserWarning) if
        the detector has not been fetched. hands: gives people their hands, such as `HandPredictor.load()`.
        precision, runtime: see `load_ready`. Raises UserError for whatever cannot be loaded.
        """
        path = default_weights() if weights is None else Path(weights)
        directory = None if body_directory is None else Path(body_directory)
        ready = load_ready(path, directory, runtime, precision, device)
        detector = None
        if detect:
            found = assets.find("detector")
            if found is None:
                warnings.warn(NO_DETECTOR, stacklevel=2)
            else:
                detector = PersonDetector(found, score_threshold)
        facts = {"weights": "default" if weights is None else path.name, **ready.facts}
        return cls(ready.network, ready.body, detector, ready.device, batch_size, facts, hands)

    @overload
    def __call__(
        self,
        picture: Picture,
        *,
        boxes: Sequence[Sequence[float] | PersonBox] | None = None,
        intrinsics: Intrinsics | None = None,
        root_depth: float | None = None,
        name: str | None = None,
    ) -> PicturePrediction: ...
    @overload
    def __call__(
        self,
        picture: Sequence[Picture],
        *,
        boxes: None = None,
        intrinsics: Intrinsics | None = None,
        root_depth: float | None = None,
        name: None = None,
    ) -> list[PicturePrediction]: ...
    def __call__(
        self,
        picture: Picture | Sequence[Picture],
        *,
        boxes: Sequence[Sequence[float] | PersonBox] | None = None,
        intrinsics: Intrinsics | None = None,
        root_depth: float | None = None,
        name: str | None = None,
    ) -> PicturePrediction | list[PicturePrediction]:
        """The people of a picture (a file, an RGB array uint8 (h, w, 3) or a Pillow image), or of each of a list.

        boxes: (x, y, width, height) in pixels of the upright picture, in place of the detector's. intrinsics: of the
        camera, where EXIF data or the default are not wanted. root_depth: metres, for every person of the picture.
        name: what results are named after; the file's name without its ending, or "picture". Raises UserError.
        """
        if isinstance(picture, Path | str | np.ndarray | Image.Image):
            subject = self.prepare(as_photo(picture), _file_name(picture), name, boxes, intrinsics)
            return self.predict([subject], root_depth)[0]
        if boxes is not None or name is not None:
            raise InputError("boxes and a name belong to one picture; call the predictor once for each")
        subjects = [
            self.prepare(
                as_photo(item), _file_name(item), None if _file_name(item) else f"picture_{index}", None, intrinsics
            )
            for index, item in enumerate(picture)
        ]
        return self.predict(subjects, root_depth)

    def prepare(
        self,
        photo: Photo,
        file: str | None = None,
        name: str | None = None,
        boxes: Sequence[Sequence[float] | PersonBox] | None = None,
        intrinsics: Intrinsics | None = None,
    ) -> Subject:
        """Decides a picture's camera and people, without the network; safe to run in another thread.

        file: the picture's file name, for the record. name: what results are named after; the file's name without its
        ending if None. boxes: as in a call. Raises InputError for a box that is none or lies outside the picture.
        """
        name = name or (Path(file).stem if file else "picture")
        camera, camera_source = (intrinsics or Intrinsics()).camera(photo.width, photo.height, photo.exif_focal)
        if boxes is not None:
            people, source = tuple(as_box(box) for box in boxes), "given"
            for person in people:
                require_inside(person, photo.width, photo.height, file or name)
        elif self.detector is None:
            people, source = (PersonBox((0.0, 0.0, float(photo.width), float(photo.height))),), "whole picture"
        else:
            people, source = tuple(detected_people(self.detector, photo.pixels)), "detector"
        return Subject(photo, file, name, people, source, camera, camera_source)

    def predict(self, subjects: Sequence[Subject], root_depth: float | None = None) -> list[PicturePrediction]:
        """The people of several prepared pictures, who share the network's batches. root_depth: metres, of all."""
        images = [subject.photo.pixels for subject in subjects]
        cameras = [subject.camera for subject in subjects]
        people = self.predict_batch(images, [subject.people for subject in subjects], cameras, root_depth)
        if self.hands is not None:
            people = self.hands.add_hands(images, people, cameras)
        return [
            PicturePrediction(
                name=subject.name,
                file=subject.file,
                pixels=subject.photo.pixels,
                camera=subject.camera,
                camera_source=subject.camera_source,
                boxes_source=subject.boxes_source,
                body=self.body,
                people=tuple(found),
                network=self.network_facts,
            )
            for subject, found in zip(subjects, people, strict=True)
        ]

    @torch.inference_mode()
    def predict_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        people: Sequence[Sequence[PersonBox]],
        cameras: Sequence[Camera],
        root_depth: float | None = None,
    ) -> list[list[Prediction]]:
        """The people (boxes) of several RGB pictures, `batch_size` at a time whatever picture they are in.

        root_depth: metres; a box's own comes first. Raises InputError for a box without area inside its picture.
        """
        places = [(index, person) for index, boxes in enumerate(people) for person in boxes]
        results: list[list[Prediction]] = [[] for _ in images]
        for start in range(0, len(places), self.batch_size):
            batch = places[start : start + self.batch_size]
            sizes = [(images[index].shape[1], images[index].shape[0]) for index, _ in batch]
            crops, pixels = zip(*(self.look(images[index], person) for index, person in batch), strict=True)
            image = torch.from_numpy(np.stack(pixels)).to(self.device).permute(0, 3, 1, 2).float() / 255
            output = self._run(image).to("cpu")
            if not (output.vertices.isfinite().all() and output.joints.isfinite().all()):
                raise InputError("the network returned numbers that are not finite; its weights are damaged")
            depths = [person.root_depth if person.root_depth is not None else root_depth for _, person in batch]
            camera = Camera.stack(
                [
                    cameras[index].mirrored(width) if person.mirrored else cameras[index]
                    for (index, person), (width, _) in zip(batch, sizes, strict=True)
                ]
            )
            placed = self._place(output, Crop.stack(crops), camera, sizes, depths, [person for _, person in batch])
            for (index, person), prediction, (width, _) in zip(batch, placed, sizes, strict=True):
                if person.mirrored:
                    prediction = prediction.mirrored(width, self._mirror_body)
                results[index].append(prediction)
        return results

    def look(
        self, image: UInt8[np.ndarray, "h w 3"], person: PersonBox
    ) -> tuple[Crop, UInt8[np.ndarray, "crop_height crop_width 3"]]:
        """The crop of a person and what the network sees there.

        What is shown in the mirror is predicted there, crop and camera included, and turned back at the end. Raises
        InputError for a box without area inside the picture.
        """
        height, width = image.shape[:2]
        size = self.network.grid.crop_size
        box = torch.tensor(person.box)
        if person.mirrored:
            box = torch.cat([(width - 1 - box[0] - box[2])[None], box[1:]])
        try:
            if person.prepared:
                crop = Crop.around(box, size, margin=1.0, rotation=person.rotation)
            else:
                crop = Crop.around(box, size, rotation=person.rotation, clip_to=(width, height))
        except ValueError as error:
            shown = ", ".join(f"{value:g}" for value in person.box)
            raise InputError(f"box ({shown}) has no area inside the picture ({width}x{height})") from error
        cut = crop.mirror(width) if person.mirrored else crop
        return crop, warp_image(image, cut.affine, size)

    def _place(
        self,
        output: LixelOutput,
        crop: Crop,
        camera: Camera,
        sizes: Sequence[tuple[int, int]],
        depths: Sequence[float | None],
        people: Sequence[PersonBox],
    ) -> list[Prediction]:
        """Meshes of a batch in the camera frame; everything on the CPU."""
        grid, root = self.network.grid, self.body.skeleton.root_index
        crop_pixels, relative = grid.decode(output.vertices)
        pixels = crop.to_image(crop_pixels)
        weights = self._area * _visible(crop_pixels, grid.crop_size) * _inside(pixels, sizes)
        # Where hardly anything of a person is inside, what is outside is all there is to go by.
        weights = torch.where(weights.sum(-1, keepdim=True) < 0.1 * self._area.sum(), self._area, weights)
        joints_image = crop.to_image(grid.decode(output.joints)[0])
        keypoints = output.keypoints
        if keypoints is not None:
            keypoints = torch.cat([crop.to_image(keypoints[..., :2]), keypoints[..., 2:]], -1)

        known = torch.tensor([torch.nan if depth is None else depth for depth in depths], dtype=relative.dtype)
        parametric = placement = params = None
        if output.params is None:
            root_depth = torch.where(known.isnan(), self._depth_from_bones(output, crop, camera), known)
        else:
            seen = camera_params(self.network, output, crop, camera)
            posed = self.body(seen).vertices
            at_root = self.body.joint_regressor[root] @ posed
            rooted = posed - at_root[..., None, :]
            free = solve_translation(rooted, pixels, camera, weights).translation[..., 2]
            root_depth = torch.where(known.isnan(), free, known)
            placement = solve_translation(rooted, pixels, camera, weights, root_depth)
            root_depth = placement.translation[..., 2]
            vertices = rooted + placement.translation[..., None, :]
            parametric = BodyMesh(vertices, self.body.joint_regressor @ vertices)
            params = dataclasses.replace(seen, translation=seen.translation + placement.translation - at_root)
        root_depth = torch.maximum(root_depth, MIN_DEPTH - relative.amin(-1))
        vertices = grid.to_camera(output.vertices, crop, camera, root_depth)
        lixel_mesh = BodyMesh(vertices, self.body.joint_regressor @ vertices)

        predictions = []
        for i, person in enumerate(people):
            confidence = None if keypoints is None else float(keypoints[i, :, 2].mean())
            predictions.append(
                Prediction(
                    body=self.body,
                    box=torch.tensor(person.box),
                    score=person.score,
                    camera=camera[i],
                    crop=crop[i],
                    lixels=output.vertices[i],
                    joints_image=joints_image[i],
                    lixel_mesh=lixel_mesh[i],
                    root_depth=float(root_depth[i]),
                    root_depth_source="solved" if depths[i] is None else "given",
                    params=None if params is None else params[i],
                    parametric_mesh=None if parametric is None else parametric[i],
                    reprojection_error=None
                    if placement is None
                    else (float(placement.median_error[i]), float(placement.mean_error[i])),
                    keypoints=None if keypoints is None else keypoints[i],
                    confidence=confidence,
                    reliable=confidence is None or confidence >= CONFIDENCE_GATE,
                )
            )
        return predictions

    def _depth_from_bones(self, output: LixelOutput, crop: Crop, camera: Camera) -> Float[Tensor, "b"]:
        """Root depths at which the lixel mesh's joints have the rest body's bone lengths."""
        grid = self.network.grid
        crop_pixels, relative = grid.decode(output.mesh_joints)
        visible = _visible(crop_pixels, grid.crop_size)
        # Solved in the frame whose z is the grid's depth axis, with the picture plane at z = 1.
        turn = grid.view_rotation(crop, camera)
        rays = camera.backproject(crop.to_image(crop_pixels), torch.ones_like(relative)) @ turn
        plane = Camera(torch.ones_like(camera.focal), torch.zeros_like(camera.center))
        along = solve_root_depth(plane.project(rays), relative, plane, self._bones, self._bone_lengths, visible)
        return along * turn[..., 2, 2]


def as_photo(picture: Picture) -> Photo:
    """A file, an RGB or grey array of bytes, or a Pillow image as a `Photo`. Raises UserError."""
    if isinstance(picture, Path | str):
        return read_photo(Path(picture))
    if isinstance(picture, Image.Image):
        return Photo(to_rgb(picture))
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise InputError(
            f"a picture array is uint8 RGB of shape (height, width, 3), not {picture.dtype} {picture.shape}"
        )
    if min(picture.shape[:2]) < 2:
        raise InputError(f"{picture.shape[1]}x{picture.shape[0]} pixels are too few to see a person")
    pixels = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    return Photo(np.ascontiguousarray(pixels))


def _file_name(picture: Picture) -> str | None:
    return Path(picture).name if isinstance(picture, Path | str) else None


def _vertex_areas(vertices: Float[Tensor, "v 3"], faces: Tensor) -> Float[Tensor, "v"]:
    """Each vertex's share of the surface, so that finely meshed fingers and faces do not outweigh limbs."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 6
    total = torch.zeros_like(vertices[:, 0])
    for corner in range(3):
        total = total.index_add(0, faces[:, corner], area)
    return total


def _visible(crop_pixels: Float[Tensor, "b n 2"], size: tuple[int, int]) -> Float[Tensor, "b n"]:
    """1 for points inside the crop, 0 for those beyond its border, which the network can only guess."""
    limit = torch.tensor([size[1] - 1.0, size[0] - 1.0])
    return ((crop_pixels >= 0) & (crop_pixels <= limit)).all(-1).to(crop_pixels.dtype)


def _inside(pixels: Float[Tensor, "b n 2"], sizes: Sequence[tuple[int, int]]) -> Float[Tensor, "b n"]:
    """1 for points inside their picture of (width, height), 0 for those that it cuts off."""
    limit = torch.tensor(sizes, dtype=pixels.dtype)[:, None] - 1
    return ((pixels >= 0) & (pixels <= limit)).all(-1).to(pixels.dtype)
