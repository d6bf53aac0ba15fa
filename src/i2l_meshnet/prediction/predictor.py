"""From images to people: boxes, crops, one network pass for many people, and meshes placed in space.

`MeshPredictor` contains all steps: `images` reads and `detect` finds people, `crop_person` cuts crops, the network
predicts lixels, `placing` puts the meshes in space, `results` has the types and `result_files` writes the files.
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
from i2l_meshnet.models.memory import InParts
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.boxes import PersonBox, as_box, require_inside
from i2l_meshnet.prediction.detect import DEFAULT_THRESHOLD, PersonDetector, detected_people
from i2l_meshnet.prediction.images import Photo, Picture, as_photo
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.placing import MeshPlacer, Views
from i2l_meshnet.prediction.results import PicturePrediction, Prediction

NO_DETECTOR = (
    "the person detector has not been fetched, so each whole picture is taken as one person; "
    "fetch it with `i2l-meshnet assets detector`, or give boxes"
)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An image ready for the network: its people and its camera.

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
    """Adds hands to people; `hands.HandPredictor` does."""

    network_facts: dict[str, Any]

    def add_hands(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        people: Sequence[Sequence[Prediction]],
        cameras: Sequence[Camera],
    ) -> list[list[Prediction]]:
        """The people of several images with their hands (`Prediction.hands`)."""
        ...


class MeshPredictor:
    """Finds people in images and gives each a mesh in space.

    Three lines: `predictor = MeshPredictor.load()`, `people = predictor("photo.jpg")`, `people.save("results")`.
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
        """network: on `device`, in evaluation mode. body: the one that it predicts; it is kept on the CPU.

        detector: without one, an image that comes without boxes is treated as one person. batch_size: maximum people
        per pass. network_facts: recorded with every result. hands: predicts people's hands (`hands.HandPredictor`).
        """
        self.network, self.body, self.detector = network, body.cpu().eval(), detector
        self._run = InParts(network)
        self.device, self.batch_size = torch.device(device), batch_size
        self.network_facts = network_facts or {}
        self.hands = hands
        if hands is not None:
            self.network_facts = {**self.network_facts, "hands": hands.network_facts}
        # For one-sided bodies: the left hand of a network that knows right hands.
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
        """A predictor with the network in the package, or one from a file: a checkpoint, a published snapshot, or what
        `i2l-meshnet export` wrote.

        device: "cpu", "cuda", or "auto": a CUDA device if there is one. body_directory: where the licensed files of
        SMPL and MANO are, for networks that predict them. detect: whether to find people; warns (UserWarning) if the
        detector has not been fetched. hands: predicts people's hands, such as `HandPredictor.load()`. precision,
        runtime: see `load_ready`. Raises UserError for anything that cannot be loaded.
        """
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
        """The people of an image (a file, an RGB array uint8 (h, w, 3) or a Pillow image), or of each of a list.

        boxes: (x, y, width, height) in pixels of the upright image; they replace the detector's. intrinsics: of the
        camera; default: EXIF, then a 55° field of view. root_depth: metres, for every person in the image. name: file
        name of the results; default: the file's name without suffix, or "picture". Raises UserError.
        """
        if isinstance(picture, Path | str | np.ndarray | Image.Image):
            subject = self.prepare(as_photo(picture), _file_name(picture), name, boxes, intrinsics)
            return self.predict([subject], root_depth)[0]
        if boxes is not None or name is not None:
            raise InputError("boxes and a name belong to one picture; call the predictor once for each")
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
        """Finds an image's camera and people, without the network; safe to run in another thread.

        file: the image's file name, for the record. name: file name of the results; default: the image's, without
        suffix. boxes: as in a call. Raises InputError for a box that is malformed or outside the image.
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
        """The people of several prepared images, in shared batches. root_depth: metres, for all of them."""
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
        """The people (boxes) of several RGB images, `batch_size` at a time whichever image they are in.

        root_depth: metres; a box's own comes first. Raises InputError for a box without area inside its image.
        """
        seen = [(index, person) for index, boxes in enumerate(people) for person in boxes]
        results: list[list[Prediction]] = [[] for _ in images]
        for start in range(0, len(seen), self.batch_size):
            batch = seen[start : start + self.batch_size]
            crops, pixels = zip(*(self.crop_person(images[index], person) for index, person in batch), strict=True)
            image = torch.from_numpy(np.stack(pixels)).to(self.device).permute(0, 3, 1, 2).float() / 255
            output = self._run(image).to("cpu")
            if not (output.vertices.isfinite().all() and output.joints.isfinite().all()):
                raise InputError("the network returned numbers that are not finite; its weights are damaged")
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
        """How the people of a batch (index of the image, box) were seen; mirrored ones, in the mirror image."""
        seen_by, sizes, depths = [], [], []
        for index, person in batch:
            height, width = images[index].shape[:2]
            seen_by.append(cameras[index].mirrored(width) if person.mirrored else cameras[index])
            sizes.append([float(width), float(height)])
            depth = person.root_depth if person.root_depth is not None else root_depth
            depths.append(float("nan") if depth is None else depth)
        people = [person for _, person in batch]
        return Views(people, Crop.stack(crops), Camera.stack(seen_by), torch.tensor(sizes), torch.tensor(depths))

    def crop_person(
        self, image: UInt8[np.ndarray, "h w 3"], person: PersonBox
    ) -> tuple[Crop, UInt8[np.ndarray, "crop_height crop_width 3"]]:
        """The crop of a person, and its pixels as the network sees them.

        A mirrored person is predicted in the mirror image, crop and camera included, and mirrored back at the end.
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
            shown = ", ".join(f"{value:g}" for value in person.box)
            raise InputError(f"box ({shown}) has no area inside the picture ({width}x{height})") from error
        cut = crop.mirror(width) if person.mirrored else crop
        return crop, warp_image(image, cut.affine, size)


def _file_name(picture: Picture) -> str | None:
    return Path(picture).name if isinstance(picture, Path | str) else None
