"""Finds image files and decodes them to upright 8-bit RGB."""

import contextlib
import dataclasses
import glob
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import reading, require_regular
from i2l_meshnet.pictures import MAX_PIXELS, open_picture

SUFFIXES = (*(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"),)
"""Suffixes of the images in folders. A file that the user names may have any suffix."""

HEIF_SUFFIXES = (".heic", ".heif")
DIAGONAL_35MM = math.hypot(36.0, 24.0)
MILLIMETRES_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""By EXIF FocalPlaneResolutionUnit: inch, centimetre, millimetre, micrometre."""

Picture = Path | str | np.ndarray | Image.Image
"""An input of a predictor: a file, an RGB array uint8 (h, w, 3), or a Pillow image."""

_pillow_limit = threading.Lock()


class UnknownFormatError(FileError):
    """A file is not an image of a known format."""


class TooManyPixelsError(FileError):
    """An image has more pixels than the limit."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A decoded image: upright 8-bit RGB. exif_focal: focal length from EXIF, pixels, or None."""

    pixels: UInt8[np.ndarray, "h w 3"]
    exif_focal: float | None = None

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


@dataclasses.dataclass(frozen=True)
class PictureFile:
    """An image to read. relative: path below the input folder; the name of a file that the user named."""

    path: Path
    relative: Path


def find_pictures(
    inputs: Sequence[str],
    recursive: bool = False,
    exclude: Path | None = None,
    suffixes: Sequence[str] = SUFFIXES,
) -> list[PictureFile]:
    """Find the images of files, folders (sorted) and glob patterns. Each file is returned once.

    exclude: folder of the results; its images are skipped in folders and patterns, unless it is the input folder.
    suffixes: of the images in folders and patterns, lower case. Raises InputError without inputs, FileError for a
    missing file, a folder without images or a pattern without a match.
    """
    if not inputs:
        raise InputError("name at least one image, folder or pattern")
    found: list[PictureFile] = []
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            files = _pictures_in(path, recursive, exclude, suffixes)
            found += [PictureFile(file, file.relative_to(path)) for file in files]
        elif path.exists():
            found.append(PictureFile(path, Path(path.name)))
        elif glob.has_magic(text):
            matches = sorted(Path(match) for match in glob.iglob(str(path), recursive=True))  # noqa: PTH207 (absolute too)
            files = [file for file in matches if _is_candidate(file, suffixes, exclude)]
            if not files:
                raise FileError(f"no image matches {text}; quote the pattern and check its folder")
            found += [PictureFile(file, Path(file.name)) for file in files]
        else:
            hint = "; addresses need a table (parquet)" if "://" in text else ""
            raise FileError(f"no such file or folder: {text}{hint}")
    unique: dict[Path, PictureFile] = {}
    for file in found:
        unique.setdefault(file.path.resolve(), file)
    return list(unique.values())


def _pictures_in(folder: Path, recursive: bool, exclude: Path | None, suffixes: Sequence[str]) -> list[Path]:
    try:
        entries = sorted(folder.rglob("*") if recursive else folder.iterdir())
    except OSError as error:
        raise FileError(f"cannot read folder {folder}: {error.strerror}") from error
    inside = exclude if exclude is not None and exclude.resolve() != folder.resolve() else None
    files = [file for file in entries if _is_candidate(file, suffixes, inside)]
    if not files:
        hint = "" if recursive else "; its subfolders are not searched (recursive)"
        raise FileError(f"no images ({', '.join(suffix[1:] for suffix in suffixes)}) in folder {folder}{hint}")
    return files


def _is_candidate(path: Path, suffixes: Sequence[str], exclude: Path | None) -> bool:
    if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
        return False
    return exclude is None or not path.resolve().is_relative_to(exclude.resolve())


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read an image of one of `PICTURE_FORMATS`, or HEIC if pillow-heif is installed, as upright 8-bit RGB.

    See `to_rgb` for the conversion. Raises FileError for a file that cannot be read: UnknownFormatError for another
    format, TooManyPixelsError for more than `max_pixels`.
    """
    with _reading(path, max_pixels) as image:
        width, height = image.size
        focal = focal_from_exif(image)
        pixels = to_rgb(image)
    if min(pixels.shape[:2]) < 2:
        raise FileError(f"cannot use {path}: {width}x{height} pixels are too small")
    return Photo(pixels, focal)


def as_photo(picture: Picture) -> Photo:
    """The `Photo` of a file, of an RGB or grey uint8 array, or of a Pillow image. Raises UserError."""
    if isinstance(picture, Path | str):
        return read_photo(Path(picture))
    if isinstance(picture, Image.Image):
        return Photo(to_rgb(picture))
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise InputError(
            f"an image array is uint8 RGB of shape (height, width, 3), not {picture.dtype} {picture.shape}"
        )
    if min(picture.shape[:2]) < 2:
        raise InputError(f"{picture.shape[1]}x{picture.shape[0]} pixels are too small")
    pixels = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    return Photo(np.ascontiguousarray(pixels))


def require_picture(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """Pillow's name of an image's format, from its header; nothing is decoded. Raises as `read_photo` does."""
    with _reading(path, max_pixels) as image:
        return image.format or "HEIF"


@contextlib.contextmanager
def _reading(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image of at most `max_pixels`. See `read_photo` for errors."""
    with reading(path, "an image", "copy or download it again"):
        require_regular(path)
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        try:
            with _opened(path) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise TooManyPixelsError(
                        f"cannot read {path}: {width}x{height} is more than {max_pixels / 1e6:g} million pixels; "
                        "make it smaller, or allow more pixels (max_pixels)"
                    )
                yield image
        except UnidentifiedImageError as error:
            raise UnknownFormatError(f"cannot read {path}: it is not a picture of a known format") from error
        except MemoryError as error:
            raise FileError(f"cannot read {path}: not enough memory to decode it; make it smaller") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if path.suffix.lower() in HEIF_SUFFIXES:
        yield _pillow_heif(path).open_heif(path, convert_hdr_to_8bit=True).to_pillow()
        return
    # The caller's limit replaces Pillow's, a module variable that is checked while the header is read.
    with _pillow_limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = open_picture(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _pillow_heif(path: Path) -> ModuleType:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise FileError(f"cannot read {path}: HEIC needs one more package; pip install 'i2l-meshnet[heic]'") from error
    return pillow_heif


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """A Pillow image as upright 8-bit RGB: EXIF orientation applied, on white where transparent, the first frame.

    Integers of 16 or 32 bits up to 65535 are divided by 257, larger ones are scaled by their maximum. Floating-point
    values are from 0 to 1, or from 0 to 255 if one is greater than 1.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        top = float(np.nanmax(values)) if values.size else 0.0
        if image.mode == "F":
            scale = 255.0 if top <= 1 else 1.0
        elif top <= 65535:
            scale = 1 / 257
        else:
            scale = 255 / top
        grey = np.clip(np.nan_to_num(values) * scale + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        paper = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, layered)
    return np.array(image.convert("RGB"))


def focal_from_exif(image: Image.Image) -> float | None:
    """Focal length from EXIF, pixels, or None.

    FocalLengthIn35mmFilm is scaled by the image diagonal (43.27 mm on film), so resizing does not change it. Without
    it, FocalLength is multiplied by FocalPlaneXResolution, which is for an image of ExifImageWidth pixels. A result
    outside 0.2 to 50 times the longer side is ignored.
    """
    try:
        tags = dict(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except Exception:  # Pillow reports damaged EXIF data by almost any exception; the image itself may be intact
        return None
    width, height = image.size
    candidates = []
    equivalent = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    candidates.append(equivalent * math.hypot(width, height) / DIAGONAL_35MM)
    unit = MILLIMETRES_PER_UNIT.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit))) or 2, 0.0)
    resolution = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
    if unit:
        recorded = _number(tags.get(ExifTags.Base.ExifImageWidth)) or width
        millimetres = _number(tags.get(ExifTags.Base.FocalLength))
        candidates.append(millimetres * resolution / unit * width / recorded)
    longer = max(width, height)
    return next((focal for focal in candidates if 0.2 * longer < focal < 50 * longer), None)


def _number(value: object) -> float:
    """An EXIF rational or integer as a float; 0 for other values, such as a division by zero."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) else 0.0
