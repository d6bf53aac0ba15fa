"""Draw the images of README and docs that show results of the default network.

    python scripts/draw_pictures.py                  # all images
    python scripts/draw_pictures.py --only page view

`page` and `view` are screenshots of a headless Chromium (playwright and the extras [serve] and [view]). `clip`
downloads the asset multiview.
"""

import contextlib
import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from i2l_meshnet import assets
from i2l_meshnet.pictures import write_picture
from i2l_meshnet.video.source import Clip

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples" / "standing_phone.jpg"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE = 300_000
"""Timeout in milliseconds; WebGL without a GPU is slow."""
CLIP_TIMES = (0.35, 0.8)
"""Frames of the clip to show, as fractions of its length."""


def run(*arguments: object) -> None:
    """Run an i2l-meshnet command of this environment."""
    subprocess.run([Path(sys.executable).with_name("i2l-meshnet"), *map(str, arguments)], check=True)


def read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(Image.open(path).convert("RGB"))


def shrunk(picture: UInt8[np.ndarray, "h w 3"], width: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    height = round(picture.shape[0] * width / picture.shape[1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def draw_photo(out: Path, work: Path) -> None:
    """The images that `predict` draws for an example, scaled down."""
    run("predict", PHOTO, "--out", work)
    for what, width in (("overlay", 939), ("joints", 939), ("side", 457)):
        name = f"{PHOTO.stem}_{what}.jpg"
        write_picture(out / name, shrunk(read(work / name), width), 93)


def draw_clip(out: Path, work: Path) -> None:
    """Two frames of the side-by-side video of two people."""
    (clip,) = assets.ensure("multiview").glob("**/Demo_MultiPerson/videos/cam01.mp4")
    run("predict", clip, "--out", work, "--formats", "glb")
    video = Clip(work / "cam01_side_by_side.mp4")
    frames = [frame.pixels for frame in video.frames()]
    chosen = [shrunk(frames[int(share * len(frames))], 1100) for share in CLIP_TIMES]
    write_picture(out / "video_side_by_side.jpg", np.vstack(chosen), 82)


@contextlib.contextmanager
def visited(*command: object, width: int, height: int) -> Iterator[Any]:
    """A browser page at the address that an i2l-meshnet command prints. Browser and command are stopped afterwards."""
    from playwright.sync_api import sync_playwright

    browser_path = next(filter(None, map(shutil.which, CHROMIUM)))
    program = [Path(sys.executable).with_name("i2l-meshnet"), *map(str, command)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as engine:
        try:
            assert server.stdout is not None
            address = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
            browser = engine.chromium.launch(executable_path=browser_path, args=list(FLAGS))
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            yield page
            browser.close()
        finally:
            server.terminate()


def draw_page(out: Path, work: Path) -> None:
    """The page of `serve` with the result of an example."""
    with visited("serve", "--port", 0, width=1000, height=1250) as page:
        page.get_by_role("button", name="Example: a person standing with a phone").click()
        page.locator("#results").wait_for()
        for viewer in ("lixel", "param"):
            page.locator(f"#{viewer}").scroll_into_view_if_needed()
            page.wait_for_function("id => document.getElementById(id).loaded", arg=viewer)
        page.wait_for_timeout(8000)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=work / "page.png", full_page=True)
    write_picture(out / "serve.jpg", read(work / "page.png"), 85)


def draw_view(out: Path, work: Path) -> None:
    """The 3D view of a photo's person."""
    run("predict", PHOTO, "--out", work / "view", "--no-pictures", "--formats", "glb")
    result = work / "view" / f"{PHOTO.stem}.json"
    with visited("view", result, "--picture", PHOTO, "--port", 0, width=1200, height=790) as page:
        page.locator("canvas").last.wait_for()
        page.get_by_text("look through the camera").wait_for()
        page.wait_for_timeout(15_000)
        # Remove viser's notice that there is no GPU.
        page.evaluate("document.querySelectorAll('[role=alert]').forEach(notice => notice.remove())")
        page.screenshot(path=work / "view.png")
    write_picture(out / "view.jpg", shrunk(read(work / "view.png"), 850), 85)


Name = Literal["photo", "clip", "page", "view"]
PICTURES: dict[Name, Callable[[Path, Path], None]] = {
    "photo": draw_photo,
    "clip": draw_clip,
    "page": draw_page,
    "view": draw_view,
}


@dataclasses.dataclass(frozen=True)
class PictureOptions:
    """Which images to draw, and where."""

    only: tuple[Name, ...] = get_args(Name)
    """Names of images: photo, clip, page, view."""
    out: Path = ROOT / "docs" / "images"
    """Folder to write to."""


def main(options: PictureOptions) -> None:
    """Draw the images."""
    assets.ensure("detector")
    for name in options.only:
        with tempfile.TemporaryDirectory() as work:
            PICTURES[name](options.out, Path(work))
        print(f"drawn: {name}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(PictureOptions, description=__doc__))
