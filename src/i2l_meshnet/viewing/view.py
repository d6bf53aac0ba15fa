"""The `view` command: an interactive 3D view of saved results in the browser, on this machine only."""

import contextlib
import dataclasses
import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, UInt8
from tyro.conf import Positional

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.console import output
from i2l_meshnet.errors import InputError
from i2l_meshnet.prediction.images import read_photo
from i2l_meshnet.prediction.overlay import COLORS, fit_to_side
from i2l_meshnet.prediction.results import MeshKind
from i2l_meshnet.skeletons import SKELETONS
from i2l_meshnet.video.source import Clip, Frame
from i2l_meshnet.viewing.saved import SavedPerson, SavedScene, read_saved

HOST = "127.0.0.1"
PICTURE_SIDE = 1024
"""Longer side of the displayed picture, pixels."""
BONE_THICKNESS, RAY_THICKNESS = 0.012, 0.004
"""Metres."""
LINE_COLOR = (70, 70, 70)


@dataclasses.dataclass(frozen=True)
class ViewOptions:
    """Show saved results in 3D in the browser: meshes, skeletons, and the camera with its image."""

    result: Positional[Path]
    """Output of predict, or its folder: .json or .npz of a photo, .json of a clip, .npz of a person in a clip."""
    picture: Path | None = None
    """The photo or clip. Default: searched in the folder of the results, then in the current folder."""
    port: int = 8080
    """Port on this machine; 0 picks a free one."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for results of these bodies."""


def run(options: ViewOptions) -> int:
    """Show the results until Ctrl-C. Raises UserError for unusable results, picture or port."""
    scene = read_saved(options.result)
    if not scene.people:
        raise InputError(f"no person was found in {scene.picture or scene.path}")
    picture = _find_picture(scene, options.picture)
    viewer = Viewer(scene, Backdrop(picture, scene), options.port, options.body_dir)
    if picture is None:
        output(f"{scene.picture or 'the clip'} was not found, so it is not shown; --picture names it")
    output(f"open {viewer.address} in a browser; Ctrl-C stops the view")
    try:
        while True:
            time.sleep(viewer.step())
    except KeyboardInterrupt:
        return 0
    finally:
        viewer.close()


def _find_picture(scene: SavedScene, given: Path | None) -> Path | None:
    if given is not None or scene.picture is None:
        return given
    candidates = (scene.path.with_name(scene.picture), Path(scene.picture))
    return next((path for path in candidates if path.exists()), None)


class Backdrop:
    """The picture behind the people: a photo, or the frames of a clip."""

    def __init__(self, path: Path | None, scene: SavedScene) -> None:
        """path: None for no picture. Raises FileError if it cannot be read, InputError if it has another size."""
        self._clip = Clip(path) if path is not None and scene.is_clip else None
        self._frames: Iterator[Frame] = iter(())
        self._number, self._pixels = -2, None  # -2: no frame number follows it
        if path is not None and self._clip is None:
            self._pixels = read_photo(path).pixels
        elif self._clip is not None:
            self.frame(0)
        if self._pixels is not None:
            self.size = self._pixels.shape[1], self._pixels.shape[0]
            if scene.size is not None and scene.size != self.size:
                size, expected = (f"{width}x{height}" for width, height in (self.size, scene.size))
                raise InputError(f"{path} has {size} pixels, but the results are for {expected}", argument="picture")
        else:
            # Without a picture and a size, assume that the principal point is the centre.
            x, y = scene.people[0].track.center.tolist()
            self.size = scene.size or (round(2 * x), round(2 * y))

    def frame(self, number: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """The picture of a frame, at most `PICTURE_SIDE` pixels large; None without a picture."""
        if self._clip is not None and number != self._number:
            if number != self._number + 1:
                self._frames = self._clip.frames(number)
            found = next(self._frames, None)
            self._pixels = self._pixels if found is None else found.pixels
            self._number = number
        return None if self._pixels is None else fit_to_side(self._pixels, PICTURE_SIDE)[0]


class Viewer:
    """A viser server with one scene in the camera frame, and its controls."""

    def __init__(self, scene: SavedScene, backdrop: Backdrop, port: int, body_dir: Path | None = None) -> None:
        """Raises InputError if viser is not installed or the port is taken, FileError for a missing body."""
        try:
            import viser

            from i2l_meshnet.viewing.access import AccessCheck
        except ImportError as error:
            raise InputError("the view needs viser: pip install 'i2l-meshnet[view]'") from error
        names = {person.track.body for person in scene.people if person.track.params is not None}
        bodies = {name: load_body(name, body_dir) for name in names}
        access = AccessCheck()
        # viser prints its address even with verbose=False.
        with contextlib.redirect_stdout(io.StringIO()), access.installed():
            self._server = viser.ViserServer(host=HOST, port=_free_port(port), label="I2L-MeshNet", verbose=False)
        if not access.active:
            self.close()
            raise InputError("this version of viser cannot refuse other pages: pip install 'viser==1.1.1'")
        # Sharing would send the scene to a server of viser's authors. A page can request it without the button too.
        self._server.gui.configure_theme(show_share_button=False)
        self._server.request_share_url = lambda verbose=True: None
        self.address = f"http://{HOST}:{self._server.get_port()}/{access.token}/"
        self._scene, self._backdrop = scene, backdrop
        frames = np.concatenate([person.track.frame for person in scene.people])
        self._frames = range(int(frames.min()), int(frames.max()) + 1)
        self._lock, self._drawn = threading.Lock(), None
        self._server.scene.set_up_direction("-y")
        self._figures = [
            _Figure(self._server.scene, person, bodies.get(person.track.body), index)
            for index, person in enumerate(scene.people)
        ]
        self._rays = self._server.scene.add_line_segments(
            "/camera", np.zeros((8, 2, 3), np.float32), LINE_COLOR, thickness=RAY_THICKNESS
        )
        self._plane = None
        first = backdrop.frame(self._frames.start)
        if first is not None:
            self._plane = self._server.scene.add_image("/picture", first, 1.0, 1.0, format="jpeg")
        self._make_controls()
        self._aim()
        self.draw()

    def close(self) -> None:
        """Stop the server."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    def step(self) -> float:
        """Show the next frame if the clip plays. Returns the seconds until the next call."""
        if len(self._frames) < 2 or not self._play.value:
            return 0.05
        start = time.perf_counter()
        self._frame.value = self._frames[(self._frames.index(int(self._frame.value)) + 1) % len(self._frames)]
        self.draw()
        times = max((person.track.time for person in self._scene.people), key=len)
        interval = float(np.median(np.diff(times))) / self._speed.value
        return max(interval - (time.perf_counter() - start), 0.001)

    def draw(self) -> None:
        """Show the state that the controls choose."""
        # Controls call this from several threads.
        with self._lock, self._server.atomic():
            state = tuple(control.value for control in self._controls)
            if state == self._drawn:
                return
            self._drawn = state
            number = self._frames.start if len(self._frames) < 2 else int(self._frame.value)
            self._draw_camera(number)
            for figure, visible in zip(self._figures, self._visible, strict=True):
                kind = self._kind.value if visible.value else None
                figure.draw(number, kind, self._skeleton.value and visible.value, self._opacity.value)

    def _make_controls(self) -> None:
        gui, people = self._server.gui, self._scene.people
        kinds = [k for k in get_args(MeshKind) if any(figure.mesh(k, 0) is not None for figure in self._figures)]
        hint = "lixel: the network's mesh; param: the body model's mesh"
        self._kind = gui.add_dropdown("mesh", [*kinds, "none"], hint=hint)
        self._opacity = gui.add_slider("opacity", 0.1, 1.0, 0.05, 0.8)
        self._skeleton = gui.add_checkbox("skeleton", True)
        self._camera = gui.add_checkbox("camera", True)
        far = float(max(np.median(person.track.joints[..., 2]) for person in people))
        self._distance = gui.add_slider("picture at (m)", 0.1, round(2 * far, 1), 0.1, round(1.5 * far, 1))
        button = gui.add_button("look through the camera")
        button.on_click(lambda event: self._look_through(event.client))
        self._visible = [gui.add_checkbox(person.label, True, visible=len(people) > 1) for person in people]
        self._controls = [self._kind, self._opacity, self._skeleton, self._camera, self._distance, *self._visible]
        if len(self._frames) > 1:
            self._frame = gui.add_slider("frame", self._frames.start, self._frames.stop - 1, 1, self._frames.start)
            self._controls.append(self._frame)
            self._play = gui.add_checkbox("play", False)
            self._speed = gui.add_slider("speed", 0.1, 2.0, 0.1, 1.0)
        for control in self._controls:
            control.on_update(lambda _: self.draw())

    def _aim(self) -> None:
        """Set the first view: the people and the camera from one side."""
        middle = np.median(np.concatenate([person.track.joints.reshape(-1, 3) for person in self._scene.people]), 0)
        view = self._server.initial_camera
        view.up = (0.0, -1.0, 0.0)
        view.look_at = tuple((0.7 * middle).tolist())
        view.position = tuple((0.7 * middle + np.linalg.norm(middle) * np.array([1.0, -0.4, -0.7])).tolist())

    def _look_through(self, client: Any) -> None:
        """Give a client the camera's position, direction and field of view."""
        corners = self._corners(1.0)
        client.camera.up_direction = (0.0, -1.0, 0.0)
        client.camera.position = (0.0, 0.0, 0.0)
        client.camera.look_at = tuple(corners.mean(0).tolist())
        client.camera.fov = 2 * float(np.arctan((corners[2, 1] - corners[0, 1]) / 2))

    def _corners(self, distance: float) -> Float[np.ndarray, "4 3"]:
        """The picture's corners at a distance (metres): upper left, upper right, lower right, lower left."""
        width, height = self._backdrop.size
        pixels = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5
        camera = self._scene.people[0].track
        flat = (pixels - camera.center) / camera.focal * distance
        return np.concatenate([flat, np.full((4, 1), distance)], 1).astype(np.float32)

    def _draw_camera(self, number: int) -> None:
        corners = self._corners(self._distance.value)
        border = np.stack([corners, np.roll(corners, -1, 0)], 1)
        self._rays.points = np.concatenate([np.stack([np.zeros_like(corners), corners], 1), border])
        self._rays.visible = self._camera.value
        if self._plane is None:
            return
        pixels = self._backdrop.frame(number)
        if pixels is not None and len(self._frames) > 1:
            self._plane.image = pixels
        self._plane.render_width, self._plane.render_height = (corners[2] - corners[0])[:2].tolist()
        self._plane.position = tuple(corners.mean(0).tolist())
        self._plane.visible = self._camera.value


class _Figure:
    """A person's mesh and skeleton in the scene."""

    def __init__(self, scene: Any, person: SavedPerson, body: Body | None, index: int) -> None:
        """scene: viser's scene."""
        self._person, self._body = person, body
        self._bones = next((s.bone_indices for s in SKELETONS.values() if s.joints == person.track.joint_names), ())
        color = tuple(COLORS[index % len(COLORS)].astype(int).tolist())
        faces = person.track.faces if body is None else body.faces.numpy()
        self._surface = self._sticks = None
        if faces is not None:
            corners = np.zeros((int(faces.max()) + 1, 3), np.float32)
            self._surface = scene.add_mesh_simple(
                f"/people/{index}/mesh", corners, faces.astype(np.uint32), color=color
            )
        if self._bones:
            start = np.zeros((len(self._bones), 2, 3), np.float32)
            self._sticks = scene.add_line_segments(
                f"/people/{index}/skeleton", start, LINE_COLOR, thickness=BONE_THICKNESS
            )

    def mesh(self, kind: MeshKind, row: int) -> Float[np.ndarray, "v 3"] | None:
        """The mesh in a row of the track, or None."""
        return self._person.mesh(kind, row, self._body)

    def draw(self, number: int, kind: str | None, skeleton: bool, opacity: float) -> None:
        """Show the person in a frame, or hide them if they are not in it. kind: the mesh; another value hides it."""
        track = self._person.track
        row = number - int(track.frame[0])
        present = 0 <= row < len(track.frame)
        vertices = self.mesh(kind, row) if present and (kind == "lixel" or kind == "param") else None
        if self._surface is not None:
            self._surface.visible = vertices is not None
            self._surface.opacity = None if opacity == 1 else opacity
            if vertices is not None:
                self._surface.vertices = vertices
        if self._sticks is not None:
            self._sticks.visible = present and skeleton
            if present:
                self._sticks.points = track.joints[row][np.array(self._bones)].astype(np.float32)


def _free_port(port: int) -> int:
    """The port, or a free one for 0. Raises InputError if it is in use: viser would silently choose another port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return probe.getsockname()[1]
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} cannot be used ({error}); choose another port", argument="port") from error
