"""The options of the `predict` command for clips and cameras."""

import dataclasses

from i2l_meshnet.errors import InputError
from i2l_meshnet.video.smoothing import SmoothKind
from i2l_meshnet.video.source import MAX_LENGTH
from i2l_meshnet.video.tracking import DETECT_EVERY


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """How people are followed in clips and camera images."""

    webcam: int | None = None
    """Number of a camera to use instead of files, 0 for the first. Ctrl-C stops."""
    detect_every: int = DETECT_EVERY
    """Run the detector every N-th frame. In between, people are followed from frame to frame."""
    max_clip_length: float = MAX_LENGTH
    """Maximum length of a clip, seconds."""
    smooth: SmoothKind = "one-euro"
    """How to smooth the motion: one-euro uses earlier frames; offline also uses later frames and is smoother."""
    save_vertices: bool = False
    """Also write the lixel mesh of every frame into the .npz files (7 KB per frame and person)."""

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise InputError(f"it must be at least 1 frame, not {self.detect_every}", argument="detect_every")
        if not self.max_clip_length > 0:
            raise InputError(
                f"it must be greater than 0 seconds, not {self.max_clip_length:g}", argument="max_clip_length"
            )
        if self.webcam is not None and self.webcam < 0:
            raise InputError(f"it must be the number of a camera, 0 or more, not {self.webcam}", argument="webcam")
