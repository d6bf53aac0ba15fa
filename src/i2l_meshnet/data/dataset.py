"""Images to samples: decode what the crop needs, cut it out, keep it uint8. Everything else happens on the device."""

import dataclasses
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from i2l_meshnet.data.annotation import Annotation, FittedBody
from i2l_meshnet.data.augmentation import Augmentation, no_augmentation
from i2l_meshnet.data.sources.base import Source
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.crop import Crop, warp_image
from i2l_meshnet.io import read_bytes, reading
from i2l_meshnet.pictures import decode_picture, open_picture
from i2l_meshnet.skeletons import Skeleton
from i2l_meshnet.tensors import TensorDataclass

REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
JPEG_START = b"\xff\xd8\xff"
DAMAGED = "download it again"


@dataclasses.dataclass(frozen=True)
class Sample(TensorDataclass):
    """A crop and the annotation of the person in it, or a batch of them.

    image: RGB. colour: factors for red, green and blue, which `network_input` applies.
    """

    image: UInt8[Tensor, "*b 3 h w"]
    colour: Float[Tensor, "*b 3"]
    crop: Crop
    annotation: Annotation

    def network_input(self) -> Float[Tensor, "*b 3 h w"]:
        """The network's input: the crop with its colours changed and clipped, in [0, 1]."""
        coloured = self.image.to(self.colour.dtype) * self.colour[..., None, None]
        return coloured.clamp_(0, 255).div_(255)


def cut_crop(
    path: Path,
    affine: Float[Tensor, "2 3"],
    image_size: tuple[int, int],
    crop_size: tuple[int, int] = (256, 256),
    full_decode: bool = False,
) -> UInt8[np.ndarray, "3 h w"]:
    """Read an image and cut a crop (see `Crop.affine`) from it: planes of red, green and blue.

    image_size: (width, height) in the annotations. A JPEG much larger than the crop is decoded at 1/2, 1/4 or 1/8 of
    its size, if that still has the crop's resolution. The reduced image is an area mean, so fine details are smoothed
    instead of aliased; docs/data.md says by how much crops differ. full_decode: never do this, as published.
    Raises FileError for an image that is missing, damaged or of another size.
    """
    with reading(path, "a picture", DAMAGED, missing="`i2l-meshnet data check` lists what is needed"):
        data = read_bytes(path)
        with open_picture(BytesIO(data)) as picture:
            found = picture.size
    # Checked before decoding, because a large image takes much memory.
    if found != image_size:
        raise FileError(
            f"image {path} has {found[0]} by {found[1]} pixels, not {image_size[0]} by {image_size[1]} as its "
            "annotations say: image and annotations do not belong together"
        )
    factor = 1
    if not full_decode and data.startswith(JPEG_START):
        (a, b, _), (c, d, _) = affine.tolist()
        step = abs(a * d - b * c) ** -0.5 * (1 + 1e-6)  # Image pixels per crop pixel, with a tolerance for rounding.
        factor = next((f for f in REDUCED if step >= f), 1)
    flags = (REDUCED[factor] if factor > 1 else cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image = decode_picture(data, flags)
    width, height = (-(-side // factor) for side in image_size)
    if image is None or image.shape[:2] != (height, width):
        raise FileError(f"image {path} is damaged: {DAMAGED}")
    if factor > 1:
        # Pixel i of the reduced image is the mean of the full image's pixels factor*i .. factor*(i+1)-1.
        shift = affine[:, :2].sum(-1, keepdim=True) * (factor - 1) / 2
        affine = torch.cat([affine[:, :2] * factor, affine[:, 2:] + shift], -1)
    blue, green, red = cv2.split(warp_image(image, affine, crop_size))
    return np.stack([red, green, blue])


class PersonDataset(Dataset[Sample]):
    """Samples of one source. Picklable and cheap to copy, because its annotations are mapped from a file.

    Positions continue from epoch to epoch: position p is annotation p % len in epoch p // len. An augmentation depends
    only on its seed, the epoch and the annotation, so the number of workers does not change the samples.
    """

    def __init__(
        self,
        source: Source,
        skeleton: Skeleton | None = None,
        fit_size: tuple[int, int] | None = None,
        crop_size: tuple[int, int] = (256, 256),
        draw: Callable[[int, int], Augmentation] = no_augmentation,
        number: int = 0,
        full_decode: bool = False,
    ) -> None:
        """skeleton: joint set of the samples, for mixtures (see `union_skeleton`). Default: the source's.

        fit_size: (bones, shape values) of the fits, for mixtures; fits of another size are dropped. draw: (epoch,
        index) -> augmentation, such as `RandomAugmentation`. number: index of this dataset in a mixture, kept in
        `Annotation.source`. full_decode: see `cut_crop`.
        """
        own = source.table.skeleton
        self._source, self._number = source, number
        self.skeleton = skeleton or own
        self._rows = torch.tensor([row for row, _ in own.remap_to(self.skeleton)], dtype=torch.long)
        self._columns = torch.tensor([column for _, column in own.remap_to(self.skeleton)], dtype=torch.long)
        arrays = source.table.arrays
        own_size = (arrays["pose"].shape[1], arrays["shape"].shape[1])
        self._fit_size = fit_size if fit_size is not None and fit_size != own_size else None
        self._crop_size, self._full_decode, self._draw = crop_size, full_decode, draw

    def __len__(self) -> int:
        return len(self._source)

    @property
    def source(self) -> Source:
        return self._source

    def __getitem__(self, position: int) -> Sample:
        return self.batch([position])[0]

    def batch(self, positions: Sequence[int]) -> Sample:
        """The samples at `positions` as one batch. Crops and annotations are computed for the whole batch."""
        rows = [divmod(position, len(self)) for position in positions]
        indices = [index for _, index in rows]
        changes = [self._draw(epoch, index) for epoch, index in rows]
        annotation = self._adapted(self._source.table.annotations(indices))
        crop = Crop.around(
            annotation.box,
            self._crop_size,
            margin=torch.tensor([change.scale for change in changes], dtype=torch.float64),
            rotation=torch.tensor([change.rotation for change in changes], dtype=torch.float64),
            mirrored=torch.tensor([change.mirrored for change in changes]),
            stretch=True,
        )
        images = np.empty((len(positions), 3, *self._crop_size), np.uint8)
        sizes = annotation.image_size.int().tolist()
        for row, index in enumerate(indices):
            path, (width, height) = self._source.image_path(index), sizes[row]
            images[row] = cut_crop(path, crop.affine[row], (width, height), self._crop_size, self._full_decode)
        return Sample(
            torch.from_numpy(images),
            torch.tensor([change.colour for change in changes]),
            crop.to(dtype=torch.float32),
            dataclasses.replace(annotation, box=annotation.box.float()),
        )

    __getitems__ = batch
    """A DataLoader calls this method, if it exists, for all samples of a batch."""

    def _adapted(self, annotation: Annotation) -> Annotation:
        """Convert a batch of annotations to the mixture's joint set and fit size."""
        count = len(annotation.id)
        changes: dict[str, Tensor | FittedBody] = {"source": torch.full((count,), self._number)}
        if self.skeleton is not self._source.table.skeleton:
            for name in ("joints_image", "joints_camera", "visible"):
                values = getattr(annotation, name)
                spread = values.new_zeros(count, len(self.skeleton), *values.shape[2:])
                spread[:, self._columns] = values[:, self._rows]
                changes[name] = spread
        if self._fit_size is not None:
            fit = annotation.fit
            changes["fit"] = dataclasses.replace(
                fit,
                pose=fit.pose.new_zeros(count, self._fit_size[0], 3),
                shape=fit.shape.new_zeros(count, self._fit_size[1]),
                known=torch.zeros_like(fit.known),
            )
        return dataclasses.replace(annotation, **changes)


def collate(samples: Sample | Sequence[Sample]) -> Sample:
    """A batch of samples with the same joint set and fit size; for `DataLoader(collate_fn=collate)`.

    A batch from `__getitems__` is returned unchanged.
    """
    return samples if isinstance(samples, Sample) else Sample.stack(samples)
