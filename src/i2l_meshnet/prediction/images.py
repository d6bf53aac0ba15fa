"""Pictures from files: found, decoded, turned upright, and brought to 8-bit RGB."""

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
"""Endings by which pictures are found in folders; a file that is named outright may have any ending."""

HEIF_SUFFIXES = (".heic", ".heif")
DIAGONAL_35MM = math.hypot(36.0, 24.0)
MILLIMETRES_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""EXIF FocalPlaneResolutionUnit: inch, centimetre, millimetre, micrometre."""

Picture = Path | str | np.ndarray | Image.Image
"""What a predictor takes: a file, an RGB array uint8 (h, w, 3), or a Pillow image."""

_pillow_limit = threading.Lock()


class UnknownFormatError(FileError):
    """A file is not a picture in a format that can be read here."""


class TooManyPixelsError(FileError):
    """A picture has more pixels than are allowed."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A decoded picture: upright 8-bit RGB, and the focal length that its EXIF data tell, pixels (None: not told)."""

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
    """An image to read: its file, and its path below the input folder (its name if it was named itself)."""

    path: Path
    relative: Path


def find_pictures(
    inputs: Sequence[str],
    recursive: bool = False,
    exclude: Path | None = None,
    suffixes: Sequence[str] = SUFFIXES,
) -> list[PictureFile]:
    """The pictures that files, folders and glob patterns stand for, each file once, folders in sorted order.

    Pictures below the folder `exclude` (where results go) are left out of folders and patterns, unless it is the
    input folder itself. suffixes: endings (lower case) that folders and patterns are searched for. Raises InputError
    without any input, FileError for a file that does not exist, a folder without pictures or a pattern without a match.
    """
    if not inputs:
        raise InputError("nothing to do: name at least one picture, folder or pattern")
    found: dict[Path, PictureFile] = {}

    def add(path: Path, relative: Path) -> None:
        found.setdefault(path.resolve(), PictureFile(path, relative))

    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            for file in _pictures_in(path, recursive, exclude, suffixes):
                add(file, file.relative_to(path))
        elif path.exists():
            add(path, Path(path.name))
        elif glob.has_magic(text):
            matches = sorted(Path(match) for match in glob.iglob(str(path), recursive=True))  # noqa: PTH207 (absolute too)
            files = [file for file in matches if file.is_file() and _ends(file, suffixes) and not _below(file, exclude)]
            if not files:
                raise FileError(f"no picture matches {text}; put the pattern in quotes and check its folder")
            for file in files:
                add(file, Path(file.name))
        else:
            hint = "; addresses are read for tables only" if "://" in text else ""
            raise FileError(f"no such file or folder: {text}{hint}")
    return list(found.values())


def _pictures_in(folder: Path, recursive: bool, exclude: Path | None, suffixes: Sequence[str]) -> list[Path]:
    try:
        entries = sorted(folder.rglob("*") if recursive else folder.iterdir())
    except OSError as error:
        raise FileError(f"cannot read folder {folder}: {error.strerror}") from error
    inside = exclude if exclude is not None and exclude.resolve() != folder.resolve() else None
    files = [file for file in entries if _ends(file, suffixes) and file.is_file() and not _below(file, inside)]
    if not files:
        hint = "" if recursive else "; its subfolders are not searched (recursive)"
        raise FileError(f"no pictures ({', '.join(ending[1:] for ending in suffixes)}) in folder {folder}{hint}")
    return files


def _ends(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _below(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Reads a picture of one of `PICTURE_FORMATS`, and HEIC where pillow-heif is installed.

    The EXIF orientation is applied; transparency is laid over white; grey, palette, CMYK, 16-bit and floating-point
    pictures become 8-bit RGB. Raises FileError, in one line that names the file, for whatever cannot be read
    (UnknownFormatError where it is no picture at all) and TooManyPixelsError for more than `max_pixels`.
    """
    with _reading(path, max_pixels) as image:
        width, height = image.size
        focal = focal_from_exif(image)
        pixels = to_rgb(image)
    if min(pixels.shape[:2]) < 2:
        raise FileError(f"cannot use {path}: {width}x{height} pixels are too few to see a person")
    return Photo(pixels, focal)


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


def require_picture(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """Pillow's name of a picture's format, from its first bytes; nothing is decoded. Raises as `read_photo` does."""
    with _reading(path, max_pixels) as image:
        return image.format or "HEIF"


@contextlib.contextmanager
def _reading(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """An opened image of at most `max_pixels`; see `reading` for errors."""
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
            raise UnknownFormatError(
                f"cannot read {path}: it is not a picture in a format that can be read here"
            ) from error
        except MemoryError as error:
            raise FileError(f"cannot read {path}: not enough memory to decode it; make it smaller") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if path.suffix.lower() in HEIF_SUFFIXES:
        yield _pillow_heif(path).open_heif(path, convert_hdr_to_8bit=True).to_pillow()
        return
    # Pillow's own limit is a module variable, checked while the header is read; the caller's limit takes its place.
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
    """A Pillow image as upright 8-bit RGB: orientation applied, transparency over white, the first of many frames.

    Values of 16 bits are divided by 257, floating-point values are taken as 0 to 1 (or 0 to 255 where they exceed
    1); 32-bit integers are scaled by 257 up to 65535, else by their maximum.
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
    """Focal length in pixels from EXIF data: the 35 mm equivalent, else the sensor's resolution; None if not told.

    The 35 mm equivalent is read by the picture's diagonal (43.27 mm), so it survives a resize. The sensor's
    resolution (FocalPlaneXResolution) holds for the recorded size, PixelXDimension. A value outside 0.2 to 50 times
    the longer side is taken as a recording error.
    """
    try:
        tags = dict(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except Exception:  # broken EXIF data, which Pillow reports as almost anything: the picture itself may be whole
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
    """An EXIF rational or integer as a float; 0 for anything else, such as a division by zero."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) else 0.0
