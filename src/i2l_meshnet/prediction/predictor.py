"""Predicts the people of images: boxes, crops, one pass of the network for many people, and meshes in space.

`MeshPredictor` contains all steps: `images` reads and `detect` finds people, `look` cuts crops, the network predicts
lixels, `placing` puts the meshes in space, `results` has the types and `result_files` writes the files.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from i2l_meshnet import assets
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.mirrored import MirroredBody
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop, warp_image
from i2l_meshnet.models.exported import Runtime, load_ready
from i2l_meshnet.models.memory import SplitBatches
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.boxes import PersonBox, as_box, require_inside
from i2l_meshnet.prediction.detect import DEFAULT_THRESHOLD, PersonDetector, detected_people
from i2l_meshnet.prediction.images import Photo, Picture, as_photo
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.placing import MeshPlacer, Views
from i2l_meshnet.prediction.results import PicturePrediction, Prediction

NO_DETECTOR = (
    "the person detector has not been fetched, so each whole image is treated as one person; "
    "fetch it with `i2l-meshnet assets detector`, or give boxes"
)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An image that is ready for the network, with its people and its camera.

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
    """Adds hands to people. `hands.HandPredictor` implements it; that module imports this one."""

    network_facts: dict[str, Any]

    def add_hands(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        people: Sequence[Sequence[Prediction]],
        cameras: Sequence[Camera],
    ) -> list[list[Prediction]]:
        """The people of several images, with their hands (`Prediction.hands`)."""
        ...


class MeshPredictor:
    """Finds people in images and predicts their meshes in space.

    `MeshPredictor.load()("photo.jpg").save("results")`. Nothing is random: the same input gives the same numbers on the
    same machine.
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
        """network: on `device`, in evaluation mode. body: the body that it predicts; it is moved to the CPU.

        detector: without it, an image without given boxes is treated as one person. batch_size: maximum people per
        pass. network_facts: recorded with every result. hands: predicts the hands of people (`hands.HandPredictor`).
        """
        self.network, self.body, self.detector = network, body.cpu().eval(), detector
        self._run = SplitBatches(network)
        self.device, self.batch_size = torch.device(device), batch_size
        self.network_facts = network_facts or {}
        self.hands = hands
        if hands is not None:
            self.network_facts = {**self.network_facts, "hands": hands.network_facts}
        # Of a network for right hands: the body of left hands.
        self._mirror_body = MirroredBody(self.body, f"{self.body.name}-left")
        self._place = MeshPlacer(network, self.body)

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
        """A predictor with the network in the package, or with the network in a file.

        The file is a checkpoint, a published snapshot, or an export of `i2l-meshnet export`.

        device: "cpu", "cuda", or "auto": a CUDA device if there is one. body_directory: folder of the licensed files
        for networks that predict SMPL or MANO. detect: find people with the detector; warns (UserWarning) if it has not
        been fetched. hands: predicts the hands of people, such as `HandPredictor.load()`. precision, runtime: see
        `load_ready`. Raises UserError for anything that cannot be loaded.
        """
        # Nine parameters: the entry point of the library takes plain keywords, all with a default.
        ready = load_ready(weights, body_directory, runtime, precision, device)
        detector = None
        if detect:
            found = assets.find("detector")
            if found is None:
                warnings.warn(NO_DETECTOR, stacklevel=2)
            else:
                detector = PersonDetector(found, score_threshold)
        return cls(ready.network, ready.body, detector, ready.device, batch_size, ready.facts, hands)

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
        """Predict the people of an image or of a list of images.

        picture: a file, an RGB array uint8 (h, w, 3) or a Pillow image. boxes: (x, y, width, height) in pixels of the
        upright image; they replace the detector. intrinsics: of the camera; default: EXIF, then a 55° field of view.
        root_depth: metres, for every person in the image. name: file name of the results; default: the file's name
        without suffix, or "picture". Raises UserError.
        """
        if isinstance(picture, Path | str | np.ndarray | Image.Image):
            subject = self.prepare(as_photo(picture), _file_name(picture), name, boxes, intrinsics)
            return self.predict([subject], root_depth)[0]
        if boxes is not None or name is not None:
            raise InputError("boxes and name are for a single image: call the predictor for each image")
        subjects = []
        for index, item in enumerate(picture):
            file = _file_name(item)
            number = None if file else f"picture_{index}"
            subjects.append(self.prepare(as_photo(item), file, number, intrinsics=intrinsics))
        return self.predict(subjects, root_depth)

    def prepare(
        self,
        photo: Photo,
        file: str | None = None,
        name: str | None = None,
        boxes: Sequence[Sequence[float] | PersonBox] | None = None,
        intrinsics: Intrinsics | None = None,
    ) -> Subject:
        """Find an image's camera and people, without the network. It can run in another thread.

        file: the image's file name, for the record. name: file name of the results; default: `file` without suffix.
        boxes: as in `__call__`. Raises InputError for a box that is malformed or outside the image.
        """
        name = name or (Path(file).stem if file else "picture")
        camera, camera_source = (intrinsics or Intrinsics()).camera(photo.width, photo.height, photo.exif_focal)
        given = None if boxes is None else [as_box(box) for box in boxes]
        for box in given or ():
            require_inside(box, photo.width, photo.height, file or name)
        people, source = self._find(photo, given)
        return Subject(photo, file, name, tuple(people), source, camera, camera_source)

    def _find(self, photo: Photo, boxes: Sequence[PersonBox] | None) -> tuple[Sequence[PersonBox], str]:
        """The people of an image, and the source of their boxes. boxes: given by the user."""
        if boxes is not None:
            return boxes, "given"
        if self.detector is None:
            return [PersonBox((0.0, 0.0, float(photo.width), float(photo.height)))], "whole picture"
        return detected_people(self.detector, photo.pixels), "detector"

    def predict(self, subjects: Sequence[Subject], root_depth: float | None = None) -> list[PicturePrediction]:
        """Predict the people of several prepared images in shared batches. root_depth: metres, for all people."""
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
        """Predict the people (boxes) of several RGB images, `batch_size` at a time across images.

        root_depth: metres, for boxes without their own. Raises InputError for a box without area inside its image.
        """
        seen = [(index, person) for index, boxes in enumerate(people) for person in boxes]
        results: list[list[Prediction]] = [[] for _ in images]
        for start in range(0, len(seen), self.batch_size):
            batch = seen[start : start + self.batch_size]
            crops, pixels = zip(*(self.look(images[index], person) for index, person in batch), strict=True)
            image = torch.from_numpy(np.stack(pixels)).to(self.device).permute(0, 3, 1, 2).float() / 255
            output = self._run(image).to("cpu")
            if not (output.vertices.isfinite().all() and output.joints.isfinite().all()):
                raise InputError("the network's output is not finite: its weights are damaged")
            views = self._views(batch, images, cameras, crops, root_depth)
            for (index, person), prediction in zip(batch, self._place(output, views), strict=True):
                if person.mirrored:
                    prediction = prediction.mirrored(images[index].shape[1], self._mirror_body)
                results[index].append(prediction)
        return results

    def _views(
        self,
        batch: Sequence[tuple[int, PersonBox]],
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        cameras: Sequence[Camera],
        crops: Sequence[Crop],
        root_depth: float | None,
    ) -> Views:
        """The views of a batch of people (index of the image, box). Mirrored people have mirrored cameras."""
        seen_by, sizes, depths = [], [], []
        for index, person in batch:
            height, width = images[index].shape[:2]
            seen_by.append(cameras[index].mirrored(width) if person.mirrored else cameras[index])
            sizes.append([float(width), float(height)])
            depth = person.root_depth if person.root_depth is not None else root_depth
            depths.append(float("nan") if depth is None else depth)
        people = [person for _, person in batch]
        return Views(people, Crop.stack(crops), Camera.stack(seen_by), torch.tensor(sizes), torch.tensor(depths))

    def look(
        self, image: UInt8[np.ndarray, "h w 3"], person: PersonBox
    ) -> tuple[Crop, UInt8[np.ndarray, "crop_height crop_width 3"]]:
        """The crop of a person, and its pixels for the network.

        A mirrored person is predicted in the mirror image (crop and camera included), then mirrored back.
        Raises InputError for a box without area inside the image.
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
            raise InputError(f"{person} has no area inside the image ({width}x{height})") from error
        cut = crop.mirror(width) if person.mirrored else crop
        return crop, warp_image(image, cut.affine, size)


def _file_name(picture: Picture) -> str | None:
    return Path(picture).name if isinstance(picture, Path | str) else None
