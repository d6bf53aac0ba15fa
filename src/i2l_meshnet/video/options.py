"""The options of the `predict` command for clips and cameras."""

import dataclasses

from i2l_meshnet.errors import InputError
from i2l_meshnet.video.smoothing import SmoothKind
from i2l_meshnet.video.source import MAX_LENGTH
from i2l_meshnet.video.tracking import DETECT_EVERY


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """Clips and cameras: how people are followed."""

    webcam: int | None = None
    """Number of a camera to read instead of files, 0 for the first; Ctrl-C stops it."""
    detect_every: int = DETECT_EVERY
    """Frames from one run of the detector to the next; in between, each person is searched where the mesh was."""
    max_clip_length: float = MAX_LENGTH
    """Refuse longer clips, seconds."""
    smooth: SmoothKind = "one-euro"
    """How motion is smoothed; offline also uses later frames and is smoother."""
    save_vertices: bool = False
    """Also write the network's own mesh of every frame into the .npz files (7 KB per frame and person)."""

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise InputError(f"it must be at least 1 frame, not {self.detect_every}", argument="detect_every")
        if not self.max_clip_length > 0:
            raise InputError(
                f"it must be greater than 0 seconds, not {self.max_clip_length:g}", argument="max_clip_length"
            )
        if self.webcam is not None and self.webcam < 0:
            raise InputError(f"it must be the number of a camera, 0 or more, not {self.webcam}", argument="webcam")
