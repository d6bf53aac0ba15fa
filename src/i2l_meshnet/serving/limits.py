"""What a server takes on, and for how long it keeps results."""

import dataclasses
import math

from i2l_meshnet.errors import InputError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of what strangers may ask for."""

    max_upload: float = 100.0
    """Largest upload, MB."""
    max_pixels: int = 50_000_000
    """Refuse pictures of more pixels than this."""
    max_people: int = 20
    """Most people in one picture; of more, those with the best scores are answered."""
    max_seconds: float = 120.0
    """How long an upload may take, and how long the work on a photo, seconds."""
    max_clip_length: float = 20.0
    """Longest clip, seconds."""
    max_clip_work: float = 900.0
    """How long the work on a clip may take, seconds; others wait meanwhile."""
    max_waiting: int = 16
    """Most uploads that wait or are being worked on at once; more are turned away until there is room."""
    keep_seconds: float = 600.0
    """Results are deleted this long after they are ready."""
    max_kept: int = 50
    """Most results kept at once; the oldest are deleted earlier."""
    max_kept_size: float = 2000.0
    """Most megabytes of results kept at once; the oldest are deleted earlier."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(Limits):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise InputError(f"--{field.name.replace('_', '-')} is a number greater than 0, not {value:g}")

    @property
    def upload_bytes(self) -> int:
        """Largest upload, bytes."""
        return int(self.max_upload * 1e6)
