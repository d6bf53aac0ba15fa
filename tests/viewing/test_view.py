"""The interactive view: the server, its page, and what it shows; without a browser."""

import re
import socket
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((view.HOST, 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "photo.png"
    cv2.imwrite(str(path), np.full((240, 320, 3), 90, np.uint8))
    return path


def test_the_command_serves_its_page_on_this_machine_until_ctrl_c(photo, picture, monkeypatch, capsys) -> None:
    port = free_port()
    pages: list[bytes] = []
    told: list[str] = []

    def look_and_interrupt(_: float) -> None:
        told.append(capsys.readouterr().out)
        found = re.fullmatch(
            rf"open (http://127.0.0.1:{port}/[\w-]{{32}}/) in a browser; Ctrl-C stops the view\n", told[0]
        )
        assert found is not None, told
        with urllib.request.urlopen(found[1], timeout=30) as page:
            pages.append(page.read())
        raise KeyboardInterrupt

    monkeypatch.setattr(view.time, "sleep", look_and_interrupt)
    assert cli.main(["view", str(photo), "--picture", str(picture), "--port", str(port)]) == 0
    assert b"<html" in pages[0]


@pytest.fixture(scope="module")
def viewer(photo: Path, picture: Path) -> Iterator[Viewer]:
    scene = read_saved(photo)
    made = Viewer(scene, Backdrop(picture, scene), free_port())
    yield made
    made.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_other_sites_pages_get_no_scene(viewer: Viewer, headers: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connected(viewer.address, headers)
    assert refused.value.response.status_code == status


@pytest.mark.parametrize("path", ["", "wrong/", "../", "%2e%2e/"])
def test_without_the_secret_path_nothing_is_answered(viewer: Viewer, path: str) -> None:
    address = f"{viewer.address.rsplit('/', 2)[0]}/{path}"
    with pytest.raises(InvalidStatus) as refused:
        connected(address, {})
    assert refused.value.response.status_code == 401
    with pytest.raises(urllib.error.HTTPError) as unanswered:
        urllib.request.urlopen(address, timeout=30)
    assert unanswered.value.code == 401


def test_its_own_page_gets_the_scene(viewer: Viewer) -> None:
    own = "{0.scheme}://{0.netloc}".format(urlsplit(viewer.address))
    for headers in ({}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}):
        with connected(viewer.address, headers) as socket:
            assert len(socket.recv(timeout=30)) > 100
    with urllib.request.urlopen(viewer.address, timeout=30) as page:
        assert page.headers["Referrer-Policy"] == "no-referrer"


def test_a_version_of_viser_that_starts_its_server_otherwise_is_refused(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    """A WebSocket as viser's page opens it, with further headers; Host replaces the usual one."""
    protocol = Subprotocol(f"viser-v{viser.__version__}")
    place = urlsplit(address)
    host = headers.get("Host", place.netloc)
    return connect(
        f"ws://{host}{place.path}",
        sock=socket.create_connection((place.hostname, place.port)),
        subprotocols=[protocol],
        additional_headers={name: value for name, value in headers.items() if name != "Host"},
        max_size=None,
    )


def test_a_photos_meshes_are_chosen_and_hidden(photo: Path, picture: Path, toy: Body) -> None:
    scene = read_saved(photo)
    viewer = Viewer(scene, Backdrop(picture, scene), free_port())
    try:
        surface = viewer._figures[1]._surface
        np.testing.assert_allclose(surface.vertices, scene.people[1].mesh("lixel", 0, toy), atol=1e-5)
        viewer._kind.value = "param"
        viewer.draw()
        np.testing.assert_allclose(surface.vertices, scene.people[1].mesh("param", 0, toy), atol=1e-5)
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
    finally:
        viewer.close()


def test_the_picture_stands_where_the_camera_saw_it(photo: Path, picture: Path) -> None:
    scene = read_saved(photo)
    viewer = Viewer(scene, Backdrop(picture, scene), free_port())
    try:
        viewer._distance.value = 2.0
        viewer.draw()
        plane = viewer._plane
        np.testing.assert_allclose(plane.position, [0, 0, 2], atol=1e-6)  # the principal point is in the middle
        assert (plane.render_width, plane.render_height) == pytest.approx((2 * 320 / 500, 2 * 240 / 500))
        assert plane.visible
        viewer._camera.value = False
        viewer.draw()
        assert not plane.visible
    finally:
        viewer.close()


def test_a_clip_plays_round_and_people_come_and_go(clip: Path, toy: Body) -> None:
    scene = read_saved(clip)
    viewer = Viewer(scene, Backdrop(None, scene), free_port())
    try:
        first, second = (figure._surface for figure in viewer._figures)
        assert (first.visible, second.visible) == (True, False)
        assert viewer.step() == pytest.approx(0.05)
        assert viewer._frame.value == 0, "it does not play by itself"
        viewer._play.value = True
        for frame in (1, 2, 3, 4):
            assert 0 < viewer.step() <= 1 / 25
            assert viewer._frame.value == frame
        np.testing.assert_allclose(first.vertices, scene.people[0].mesh("param", 4, toy), atol=1e-5)
        np.testing.assert_allclose(second.vertices, scene.people[1].mesh("param", 0, toy), atol=1e-5)
        assert second.visible
        viewer._frame.value = 11
        viewer.draw()
        assert (first.visible, second.visible) == (False, True)
        viewer.step()
        assert viewer._frame.value == 0
    finally:
        viewer.close()


def test_the_frames_of_a_clip_stand_behind_the_people(clip: Path, tmp_path: Path) -> None:
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


def test_what_cannot_be_viewed_is_told_in_one_line(photo: Path, clip: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other.png"
    cv2.imwrite(str(other), np.zeros((50, 60, 3), np.uint8))
    with socket.socket() as taken:
        taken.bind((view.HOST, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = [
            ([str(tmp_path / "missing.json")], "missing.json"),
            ([str(photo), "--picture", str(other)], "is 60x50 pixels, but the results are of 320x240"),
            ([str(photo), "--picture", str(tmp_path / "none.jpg")], "none.jpg"),
            ([str(photo), "--port", port], f"port {port} cannot be used"),
            ([str(photo), "--port", "70000"], "port 70000 cannot be used"),
        ]
        for arguments, expected in cases:
            assert cli.main(["view", *arguments]) == 1
            error = capsys.readouterr().err
            assert expected in error
            assert error.count("\n") == 1


def test_without_viser_it_tells_what_to_install(photo: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    scene = read_saved(photo)
    with pytest.raises(InputError, match=r"pip install 'i2l-meshnet\[view\]'"):
        Viewer(scene, Backdrop(None, scene), 0)
