"""The page in a headless Chromium, with a server that listens on a port."""

import itertools
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from playwright.sync_api import sync_playwright
from serving_clients import picture, running

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving.jobs import JobQueue
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.runner import JobRunner

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 120_000  # milliseconds; WebGL without a GPU is slow


@pytest.fixture(scope="module")
def address(predictor: MeshPredictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    limits = Limits(max_upload=2.0)
    with running(JobQueue(JobRunner(predictor, limits), tmp_path_factory.mktemp("browser"), limits), limits) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as engine:
        made = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(browser, address: str):
    """The page in a new context. Fails on requests to other hosts and on errors that the browser reports."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, permissions=["camera"])
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda asked: None if asked.url.startswith((address, "blob:")) else wrong.append(asked.url))
    opened.goto(address)
    yield opened
    context.close()
    # A refused upload is reported by the browser itself.
    assert [line for line in wrong if "the server responded with a status of 4" not in line] == []


def is_drawn(page, identity: str) -> bool:
    """Whether the canvas of a viewer shows more than its background."""
    page.wait_for_function("id => document.getElementById(id).loaded", arg=identity)
    shown = np.asarray(Image.open(BytesIO(page.locator(f"#{identity}").screenshot(timeout=PATIENCE))).convert("L"))
    return float(shown[40:-40, 40:-40].std()) > 8


def test_upload_rotate_and_download(page, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(picture())
    page.locator("#file").set_input_files(photo)
    page.locator("#results").wait_for()
    assert page.locator("#summary").inner_text().startswith("1 person.")
    assert "score 90 %" in page.locator("#people").inner_text()
    assert page.evaluate("document.getElementById('overlay').naturalWidth") == 300
    # The page is as wide as a phone.
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for identity in ("lixel", "param"):
        page.locator(f"#{identity}").scroll_into_view_if_needed()
        for _ in range(20):
            if is_drawn(page, identity):
                break
            page.wait_for_timeout(500)
        else:
            pytest.fail(f"the viewer {identity} stays empty")
    angles = "() => ['lixel', 'param'].map(id => document.getElementById(id).getCameraOrbit().theta)"
    before = page.evaluate(angles)
    page.locator("#lixel .userInput").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"before => ({angles})().every((now, i) => Math.abs(now - before[i]) > 0.05)", arg=before)
    for name, check in {
        "Numbers (NPZ)": lambda path: np.load(path)["lixel_vertices"].shape == (1, 1229, 3),
        "Body GLB of person 1": lambda path: trimesh.load(path, file_type="glb").geometry,
    }.items():
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        assert check(download.value.path())
    page.get_by_role("button", name="Delete it now").click()
    assert page.locator("#results").is_hidden()


def without_meshes(page) -> None:
    """Leave the viewers empty, because drawing a mesh without a GPU takes many seconds."""
    page.route("**/*.glb", lambda route: None)


def test_a_bad_upload_shows_an_alert_that_a_good_one_removes(page, tmp_path: Path) -> None:
    without_meshes(page)
    bad, large, good = (tmp_path / name for name in ("bad.jpg", "large.jpg", "good.png"))
    bad.write_text("no picture")
    large.write_bytes(bytes(2_000_001))
    good.write_bytes(picture(kind="PNG"))
    for file, alert in ((bad, "not a picture"), (large, "larger than 2 MB")):
        page.locator("#file").set_input_files(file)
        page.get_by_role("alert").filter(has_text=alert).wait_for()
        assert page.locator("#work").is_hidden()
    page.locator("#file").set_input_files(good)
    page.locator("#results").wait_for()
    assert page.get_by_role("alert").is_hidden()


def test_by_keyboard_and_with_the_camera(page) -> None:
    without_meshes(page)
    example = page.get_by_role("button", name="Example: a person standing with a phone")
    for _ in itertools.repeat(None, 20):
        page.keyboard.press("Tab")
        if example.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.locator("#results").wait_for()
    assert page.evaluate("document.getElementById('overlay').naturalWidth") == 720
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    page.locator("#results").wait_for(state="hidden")
    page.locator("#results").wait_for()
    assert page.locator("#summary").inner_text().startswith("1 person.")
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_every_control_has_a_name_and_the_interface_is_described(page, address: str) -> None:
    page.locator("summary").click()
    for role in ("button", "spinbutton", "checkbox", "link"):
        for control in page.get_by_role(role).all():
            name = control.evaluate(
                "c => c.ariaLabel || c.textContent.trim() || c.labels?.[0]?.textContent.trim() || "
                "c.querySelector('img')?.alt"
            )
            assert name
    page.goto(f"{address}/docs")
    page.get_by_role("heading", name="POST /predict").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
