import math
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from i2l_meshnet.errors import FileError
from i2l_meshnet.prediction.images import TooManyPixelsError, find_pictures, read_photo

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def quarters(width: int = 60, height: int = 40) -> np.ndarray:
    """Red, green / blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    for color, (y, x) in zip(COLORS, ((0, 0), (0, w), (h, 0), (h, w)), strict=True):
        picture[y : y + h, x : x + w] = color
    return picture


@pytest.mark.parametrize("ending", ["bmp", "tiff", "webp", "jpg"])
def test_formats(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(quarters()).save(path, **({"lossless": True} if ending == "webp" else {}))
    photo = read_photo(path)
    assert (photo.width, photo.height) == (60, 40)
    inner = photo.pixels[10:30:19, 10:50:39].astype(int)
    np.testing.assert_allclose(inner, quarters()[10:30:19, 10:50:39], atol=6 if ending == "jpg" else 0)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(3, Image.Transpose.ROTATE_180), (5, Image.Transpose.TRANSPOSE), (6, Image.Transpose.ROTATE_90)],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, stored: Image.Transpose) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(quarters()).transpose(stored).save(tmp_path / "stored.png", exif=exif)
    np.testing.assert_array_equal(read_photo(tmp_path / "stored.png").pixels, quarters())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "I", "I;16", "F"])
def test_every_pixel_format_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.linspace(0, 255, 64).astype(np.uint8).reshape(1, 64).repeat(8, 0)
    if mode in ("I", "I;16"):
        image = Image.fromarray(grey.astype(np.uint16) * 257)
        image = image if mode == "I;16" else image.convert("I")
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "1":
        grey = np.where(grey > 127, 255, 0).astype(np.uint8)
        image = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    elif mode == "PA":
        image = Image.fromarray(grey).convert("P").convert("PA")
    else:
        image = Image.fromarray(grey).convert(mode)
    path = tmp_path / ("picture.png" if mode in ("1", "L", "LA", "P", "RGBA", "I;16") else "picture.tiff")
    image.save(path)
    pixels = read_photo(path).pixels
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), grey[..., None].repeat(3, -1).astype(int), atol=1)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :2] = (10, 20, 30, 255)
    rgba[:, 2:] = (10, 20, 30, 0)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = read_photo(tmp_path / "a.png").pixels
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[0, 3].tolist() == [255, 255, 255]


def exif_photo(path: Path, tags: dict[int, object], size: tuple[int, int] = (400, 300)) -> Path:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    Image.new("RGB", size).save(path, exif=exif)
    return path


def test_focal_length_from_exif(tmp_path: Path) -> None:
    base = ExifTags.Base
    by_film = exif_photo(tmp_path / "film.jpg", {base.FocalLengthIn35mmFilm: 50})
    assert read_photo(by_film).exif_focal == pytest.approx(50 * 500 / math.hypot(36, 24))
    sensor = {
        base.FocalLength: 20.0,
        base.FocalPlaneXResolution: 2540.0,
        base.FocalPlaneResolutionUnit: 2,
        base.ExifImageWidth: 800,
    }
    # 20 mm at 100 pixels a millimetre, in a picture shrunk to half the recorded width.
    by_sensor = exif_photo(tmp_path / "sensor.jpg", sensor)
    assert read_photo(by_sensor).exif_focal == pytest.approx(1000)
    assert read_photo(exif_photo(tmp_path / "zero.jpg", {base.FocalLengthIn35mmFilm: 0})).exif_focal is None
    assert read_photo(exif_photo(tmp_path / "none.jpg", {})).exif_focal is None


@pytest.mark.parametrize("kind", ["text", "empty", "truncated.jpg", "truncated.png", "pixel", "missing", "heic"])
def test_an_unreadable_file_is_an_error_of_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / (kind if "." in kind else f"{kind}.{'heic' if kind == 'heic' else 'jpg'}")
    if kind.startswith("truncated"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "pixel":
        Image.new("RGB", (1, 1)).save(path)
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "this is not an image")
    with pytest.raises(FileError) as caught:
        read_photo(path)
    assert str(path) in str(caught.value)


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    path = tmp_path / "wide.png"
    Image.new("1", (20000, 16000)).save(path)
    with pytest.raises(TooManyPixelsError):
        read_photo(path)
    small = tmp_path / "small.png"
    Image.new("RGB", (50, 50)).save(small)
    with pytest.raises(TooManyPixelsError):
        read_photo(small, max_pixels=2499)
    assert read_photo(small, max_pixels=2500).width == 50
    assert limit == Image.MAX_IMAGE_PIXELS


def test_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.fromarray(quarters(64, 64))).save(path, quality=95)
    pixels = read_photo(path).pixels
    np.testing.assert_allclose(pixels[16::32, 16::32].astype(int), quarters(64, 64)[16::32, 16::32], atol=12)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(FileError, match=r"i2l-meshnet\[heic\]"):
        read_photo(path)


def found(inputs: list[str], recursive: bool = False, exclude: Path | None = None) -> list[str]:
    return [picture.relative.as_posix() for picture in find_pictures(inputs, recursive, exclude)]


def test_finding_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "sub/c.webp", "results/a_overlay.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    folder, out = str(tmp_path), tmp_path / "results"
    assert found([folder]) == ["a.png", "b.JPG"]
    assert found([folder], recursive=True) == ["a.png", "b.JPG", "results/a_overlay.jpg", "sub/c.webp"]
    assert found([folder], recursive=True, exclude=out) == ["a.png", "b.JPG", "sub/c.webp"]
    assert found([f"{folder}/*"]) == ["a.png", "b.JPG"]
    # A file that is named itself may have any suffix. A file that is named twice is found once.
    assert found([f"{folder}/notes.txt", f"{folder}/a.png", folder]) == ["notes.txt", "a.png", "b.JPG"]


def test_inputs_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(b"x")
    for text in (str(tmp_path), str(tmp_path / "nothing.jpg"), str(tmp_path / "*.png")):
        with pytest.raises(FileError) as caught:
            find_pictures([text])
        assert text in str(caught.value)
