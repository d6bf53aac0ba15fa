"""Pictures to samples: decode what the crop needs, cut it out, keep it uint8. All else happens on the device."""

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

from i2l_meshnet.data import augmentation
from i2l_meshnet.data.annotation import Annotation, FittedBody
from i2l_meshnet.data.augmentation import Augmentation
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
    """A crop and what is known of the person in it, or a batch of them.

    image: RGB. colour: factors that the red, green and blue values are still to be multiplied by.
    """

    image: UInt8[Tensor, "*b 3 h w"]
    colour: Float[Tensor, "*b 3"]
    crop: Crop
    annotation: Annotation

    def network_input(self) -> Float[Tensor, "*b 3 h w"]:
        """The crop as the network takes it: colours changed, clipped, in [0, 1]."""
        coloured = self.image.to(self.colour.dtype) * self.colour[..., None, None]
        return coloured.clamp_(0, 255).div_(255)


def cut_crop(
    path: Path,
    affine: Float[Tensor, "2 3"],
    image_size: tuple[int, int],
    crop_size: tuple[int, int] = (256, 256),
    full_decode: bool = False,
) -> UInt8[np.ndarray, "3 h w"]:
    """Reads a picture and cuts a crop (see `Crop.affine`) from it; planes of red, green and blue.

    image_size: (width, height) that the annotations state. A JPEG much larger than the crop is decoded at 1/2, 1/4
    or 1/8 of its size, as long as that still has the crop's resolution; `full_decode` (the published behaviour)
    never does. The reduced picture is an area mean, so fine detail that full decoding would alias is smoothed
    away; docs/data.md says by how much crops differ.
    Raises FileError for a picture that is missing, damaged or of another size.
    """
    with reading(path, "a picture", DAMAGED, missing="`i2l-meshnet data check` lists what is needed"):
        data = read_bytes(path)
        with open_picture(BytesIO(data)) as picture:
            found = picture.size
    # Before a giant is decoded.
    if found != image_size:
        raise FileError(
            f"picture {path} has {found[0]} by {found[1]} pixels, not {image_size[0]} by {image_size[1]} as its "
            "annotations say: picture and annotations do not belong together"
        )
    factor = 1
    if not full_decode and data.startswith(JPEG_START):
        (a, b, _), (c, d, _) = affine.tolist()
        step = abs(a * d - b * c) ** -0.5 * (1 + 1e-6)  # picture pixels to a crop pixel, rounding allowed for
        factor = next((f for f in REDUCED if step >= f), 1)
    flags = (REDUCED[factor] if factor > 1 else cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image = decode_picture(data, flags)
    width, height = (-(-side // factor) for side in image_size)
    if image is None or image.shape[:2] != (height, width):
        raise FileError(f"picture {path} is damaged: {DAMAGED}")
    if factor > 1:
        # Pixel i of the reduced picture is the mean of the full picture's pixels factor*i .. factor*(i+1)-1.
        shift = affine[:, :2].sum(-1, keepdim=True) * (factor - 1) / 2
        affine = torch.cat([affine[:, :2] * factor, affine[:, 2:] + shift], -1)
    blue, green, red = cv2.split(warp_image(image, affine, crop_size))
    return np.stack([red, green, blue])


class PersonDataset(Dataset[Sample]):
    """Samples of one source. Picklable and cheap to copy: its annotations are mapped from a file.

    Positions count on from epoch to epoch: position p is annotation p % len in epoch p // len. The random
    numbers of a sample depend on the seed, the epoch and the annotation only, so any number of workers gives the
    same samples.
    """

    def __init__(
        self,
        source: Source,
        skeleton: Skeleton | None = None,
        fit_size: tuple[int, int] | None = None,
        crop_size: tuple[int, int] = (256, 256),
        augment: bool = False,
        mirror: bool = True,
        seed: int = 0,
        number: int = 0,
        full_decode: bool = False,
        draw: Callable[[int, int], Augmentation] | None = None,
    ) -> None:
        """skeleton: joint set of the samples, for mixtures (see `union_skeleton`); the source's own by default.

        fit_size: (bones, shape values) to which fits are brought, for mixtures: a source whose fits are of another
        size gives none. augment: for training. mirror: whether augmentation may mirror. number: of this data set in
        a mixture, kept in `Annotation.source`. draw: (epoch, index) -> Augmentation, in place of the random one.
        """
        own = source.table.skeleton
        self._source, self._number = source, number
        self.skeleton = skeleton or own
        self._rows = torch.tensor([row for row, _ in own.remap_to(self.skeleton)], dtype=torch.long)
        self._columns = torch.tensor([column for _, column in own.remap_to(self.skeleton)], dtype=torch.long)
        arrays = source.table.arrays
        own_size = (arrays["pose"].shape[1], arrays["shape"].shape[1])
        self._fit_size = fit_size if fit_size is not None and fit_size != own_size else None
        self._crop_size, self._full_decode = crop_size, full_decode
        self._augment, self._mirror, self._seed, self._draw = augment, mirror, seed, draw

    def __len__(self) -> int:
        return len(self._source)

    @property
    def source(self) -> Source:
        return self._source

    def augmentation(self, epoch: int, index: int) -> Augmentation:
        """The change that annotation `index` undergoes in `epoch`."""
        if self._draw is not None:
            return self._draw(epoch, index)
        if not self._augment:
            return augmentation.NONE
        generator = np.random.default_rng((self._seed, self._number, epoch, index))
        return augmentation.draw(generator.random, generator.standard_normal, self._mirror)

    def __getitem__(self, position: int) -> Sample:
        return self.batch([position])[0]

    def batch(self, positions: Sequence[int]) -> Sample:
        """The samples at `positions` as one batch; much of the work is done for all of them at once."""
        places = [divmod(position, len(self)) for position in positions]
        indices = [index for _, index in places]
        changes = [self.augmentation(epoch, index) for epoch, index in places]
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
    """What a DataLoader calls, if there is such a method, for all samples of a batch."""

    def _adapted(self, annotation: Annotation) -> Annotation:
        """A batch of annotations in the mixture's joint set and fit size."""
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
    """A batch from samples of the same joint set and fit size; for `DataLoader(collate_fn=collate)`.

    What `__getitems__` has already made a batch of stays as it is.
    """
    return samples if isinstance(samples, Sample) else Sample.stack(samples)
