"""The interactive view without a browser: the server, its page, and what it shows."""

import contextlib
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import viser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from i2l_meshnet import cli
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.video.encode import VideoWriter
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.viewing import view
from i2l_meshnet.viewing.saved import read_saved
from i2l_meshnet.viewing.view import Backdrop, Viewer


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "photo.png"
    cv2.imwrite(str(path), np.full((240, 320, 3), 90, np.uint8))
    return path


def test_the_command_serves_its_page_until_ctrl_c(photo, picture, monkeypatch, capsys) -> None:
    pages: list[bytes] = []

    def open_and_interrupt(_: float) -> None:
        found = re.search(r"http://127.0.0.1:\d+/[\w-]{32}/", capsys.readouterr().out)
        assert found is not None
        with urllib.request.urlopen(found[0], timeout=30) as page:
            pages.append(page.read())
        raise KeyboardInterrupt

    monkeypatch.setattr(view.time, "sleep", open_and_interrupt)
    assert cli.main(["view", str(photo), "--picture", str(picture), "--port", "0"]) == 0
    assert b"<html" in pages[0]


@contextlib.contextmanager
def shown(result: Path, picture: Path | None = None) -> Iterator[Viewer]:
    scene = read_saved(result)
    viewer = Viewer(scene, Backdrop(picture, scene), 0)
    try:
        yield viewer
    finally:
        viewer.close()


@pytest.fixture(scope="module")
def viewer(photo: Path, picture: Path) -> Iterator[Viewer]:
    with shown(photo, picture) as made:
        yield made


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_requests_from_other_sites_are_refused(viewer: Viewer, headers: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connected(viewer.address, headers)
    assert refused.value.response.status_code == status


@pytest.mark.parametrize("path", ["", "wrong/", "%2e%2e/"])
def test_other_paths_are_unauthorized(viewer: Viewer, path: str) -> None:
    address = f"{viewer.address.rsplit('/', 2)[0]}/{path}"
    with pytest.raises(InvalidStatus) as refused:
        connected(address, {})
    assert refused.value.response.status_code == 401
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(address, timeout=30)
    assert caught.value.code == 401


def test_its_own_page_receives_the_scene(viewer: Viewer) -> None:
    own = "{0.scheme}://{0.netloc}".format(urlsplit(viewer.address))
    for headers in ({}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}):
        with connected(viewer.address, headers) as socket:
            assert len(socket.recv(timeout=30)) > 100
    with urllib.request.urlopen(viewer.address, timeout=30) as page:
        assert page.headers["Referrer-Policy"] == "no-referrer"


def test_a_version_of_viser_without_the_checks_is_refused(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherServer:
        running = True

        def __init__(self, **_: object) -> None:
            started.append(self)

        def stop(self) -> None:
            self.running = False

    started: list[OtherServer] = []
    monkeypatch.setattr("viser.ViserServer", OtherServer)
    scene = read_saved(photo)
    with pytest.raises(InputError):
        Viewer(scene, Backdrop(None, scene), 0)
    assert not started[0].running


def connected(address: str, headers: dict[str, str]) -> ClientConnection:
    """A WebSocket as viser's page opens it, with more headers; Host replaces the default."""
    protocol = Subprotocol(f"viser-v{viser.__version__}")
    parts = urlsplit(address)
    host = headers.get("Host", parts.netloc)
    return connect(
        f"ws://{host}{parts.path}",
        sock=socket.create_connection((parts.hostname, parts.port)),
        subprotocols=[protocol],
        additional_headers={name: value for name, value in headers.items() if name != "Host"},
        max_size=None,
    )


def test_the_meshes_of_a_photo_are_chosen_and_hidden(photo: Path, toy: Body) -> None:
    people = read_saved(photo).people
    with shown(photo) as viewer:
        surface = viewer._figures[1]._surface
        np.testing.assert_allclose(surface.vertices, people[1].mesh("lixel", 0, toy), atol=1e-5)
        viewer._kind.value = "param"
        viewer.draw()
        np.testing.assert_allclose(surface.vertices, people[1].mesh("param", 0, toy), atol=1e-5)
        assert surface.visible
        assert viewer._figures[1]._sticks.points.shape == (len(toy.skeleton.bones), 2, 3)
        viewer._visible[1].value = False
        viewer.draw()
        assert not surface.visible
        assert viewer._figures[0]._surface.visible
        viewer._kind.value = "none"
        viewer.draw()
        assert not viewer._figures[0]._surface.visible
        assert viewer._figures[0]._sticks.visible


def test_the_picture_is_where_the_camera_saw_it(viewer: Viewer) -> None:
    viewer._distance.value = 2.0
    viewer.draw()
    plane = viewer._plane
    np.testing.assert_allclose(plane.position, [0, 0, 2], atol=1e-6)  # the principal point is in the middle
    assert (plane.render_width, plane.render_height) == pytest.approx((2 * 320 / 500, 2 * 240 / 500))
    assert plane.visible
    viewer._camera.value = False
    viewer.draw()
    assert not plane.visible


def test_a_clip_plays_round_and_people_come_and_go(clip: Path, toy: Body) -> None:
    people = read_saved(clip).people
    with shown(clip) as viewer:
        first, second = (figure._surface for figure in viewer._figures)
        assert (first.visible, second.visible) == (True, False)
        assert viewer.step() == pytest.approx(0.05)
        assert viewer._frame.value == 0, "it does not start by itself"
        viewer._play.value = True
        for frame in (1, 2, 3, 4):
            assert 0 < viewer.step() <= 1 / 25
            assert viewer._frame.value == frame
        np.testing.assert_allclose(first.vertices, people[0].mesh("param", 4, toy), atol=1e-5)
        np.testing.assert_allclose(second.vertices, people[1].mesh("param", 0, toy), atol=1e-5)
        assert second.visible
        viewer._frame.value = 11
        viewer.draw()
        assert (first.visible, second.visible) == (False, True)
        viewer.step()
        assert viewer._frame.value == 0


def test_the_frames_of_a_clip_are_behind_the_people(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 320, 240, Fraction(25)) as writer:
        for number in range(12):
            writer.write(np.full((240, 320, 3), 20 * number, np.uint8), number * TICKS // 25)
    scene = read_saved(clip)
    backdrop = Backdrop(path, scene)
    assert backdrop.size == (320, 240)
    for number in (0, 1, 2, 7, 3, 4, 11):
        pixels = backdrop.frame(number)
        assert pixels is not None
        assert abs(float(pixels.mean()) - 20 * number) < 4


def test_unusable_arguments_are_reported_in_one_line(photo: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((50, 60, 3), np.uint8))
    with socket.socket() as used:
        used.bind((view.HOST, 0))
        used.listen()
        port = str(used.getsockname()[1])
        cases = [
            ([str(tmp_path / "missing.json")], "missing.json"),
            ([str(photo), "--picture", str(tmp_path / "other.png")], "60x50"),
            ([str(photo), "--port", port], "--port"),
            ([str(photo), "--port", "70000"], "--port"),
        ]
        for arguments, expected in cases:
            assert cli.main(["view", *arguments]) == 1
            error = capsys.readouterr().err
            assert expected in error
            assert error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "viser", None)
    assert cli.main(["view", str(photo)]) == 1
    assert "i2l-meshnet[view]" in capsys.readouterr().err
