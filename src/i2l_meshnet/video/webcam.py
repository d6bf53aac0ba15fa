"""`predict` for a camera: show people as they move."""

import time
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction

import cv2
import numpy as np
from jaxtyping import UInt8

from i2l_meshnet.console import counted, message, output
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.io import atomic_path
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.overlay import fit_to_side
from i2l_meshnet.prediction.predict_files import load_predictor, require_writable
from i2l_meshnet.video.encode import VideoWriter
from i2l_meshnet.video.follow import follow
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.source import TICKS, Frame
from i2l_meshnet.video.tracking import Tracker

WINDOW = "i2l-meshnet"
RATE = Fraction(15)
"""Frames per second for the encoder. Frames keep their own times."""
STATUS_SECONDS = 5.0
"""Time between two status lines, seconds."""


class Camera:
    """A camera, read by OpenCV."""

    def __init__(self, number: int) -> None:
        """Raise FileError if there is no such camera or it gives no picture."""
        self._stream = cv2.VideoCapture(number)  # noqa: TID251 (a device number)
        fine, first = self._stream.read()
        if not fine:
            self._stream.release()
            raise FileError(f"camera {number} gives no picture; check that it is plugged in, free, and yours to use")
        self.height, self.width = first.shape[:2]

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the camera stops. A second frame at the same time is skipped."""
        start, last, number = time.monotonic(), -1, 0
        try:
            while True:
                fine, picture = self._stream.read()
                if not fine:
                    return
                ticks = round((time.monotonic() - start) * TICKS)
                if ticks > last:
                    yield Frame(number, ticks, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                    last, number = ticks, number + 1
        finally:
            self._stream.release()


def run(options: PredictOptions, clip_options: ClipOptions) -> int:
    """Draw people until Ctrl-C, Escape in the window or the end of the camera. Write the drawings as a video."""
    if options.input.inputs:
        raise InputError("a camera is used instead of files: leave out the files", argument="webcam")
    for name in ("hands", "hand"):
        if getattr(options.people, name):
            raise InputError("hands are for files: leave it out for cameras", argument=name)
    require_writable(options.out)
    source = Camera(clip_options.webcam or 0)
    predictor = load_predictor(options, None)
    intrinsics, _ = options.camera.camera(source.width, source.height)
    size = (source.width, source.height)
    every, depth = clip_options.detect_every, options.people.root_depth
    tracker = Tracker(predictor, intrinsics, size, detect_every=every, root_depth=depth)
    path = options.out / f"webcam_{datetime.now():%Y%m%d_%H%M%S}_overlay.mp4"
    window = has_window()
    if not window:
        message("OpenCV cannot open a window here; `i2l-meshnet serve` shows the camera in a browser")
    count, writer = 0, None
    start = reported = time.monotonic()
    with atomic_path(path) as temporary:
        try:
            for frame in follow(tracker, source.frames(), "off" if clip_options.smooth == "off" else "one-euro"):
                drawn, _ = fit_to_side(frame.overlay(options.output.drawn), options.output.max_side)
                writer = writer or VideoWriter(temporary, drawn.shape[1], drawn.shape[0], RATE)
                writer.write(drawn, round(frame.time * TICKS))
                count += 1
                now = time.monotonic()
                if now - reported >= STATUS_SECONDS:
                    people = counted(len(frame.people), "person", "people")
                    message(f"{count / (now - start):.1f} frames per second, {people}; Ctrl-C stops")
                    reported = now
                if window and not _show(drawn):
                    break
        except KeyboardInterrupt:
            message("stopping")
        if writer is None:
            raise FileError(f"camera {clip_options.webcam} gave no picture that could be drawn")
        writer.close()
    rate = count / max(time.monotonic() - start, 1e-9)
    output(f"{counted(count, 'frame')}, {rate:.1f} per second; overlay in {path}")
    return 0


def has_window() -> bool:
    """Whether OpenCV can open a window: not with the headless package, and not without a display."""
    try:
        cv2.namedWindow(WINDOW)
    except cv2.error:
        return False
    return True


def _show(picture: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Show a picture. Return False if Escape was pressed."""
    cv2.imshow(WINDOW, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) != 27
