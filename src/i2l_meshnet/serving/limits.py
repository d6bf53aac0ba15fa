"""The limits of a server."""

import dataclasses
import math

from i2l_meshnet.errors import InputError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on what clients may ask for, and on the results that are kept."""

    max_upload: float = 100.0
    """Maximum size of an upload, MB."""
    max_pixels: int = 50_000_000
    """Refuse images with more pixels than this."""
    max_people: int = 20
    """Maximum people per image. The people with the highest scores are kept."""
    max_seconds: float = 120.0
    """Time limit for an upload, and for the work on a photo, seconds."""
    max_clip_length: float = 20.0
    """Maximum length of a clip, seconds."""
    max_clip_work: float = 900.0
    """Time limit for the work on a clip, seconds. Other users wait meanwhile."""
    max_waiting: int = 16
    """Maximum uploads that wait or are processed. Further uploads are refused."""
    keep_seconds: float = 600.0
    """Delete results after this time, seconds."""
    max_kept: int = 50
    """Maximum results to keep. The oldest are deleted first."""
    max_kept_size: float = 2000.0
    """Maximum size of all results, MB. The oldest are deleted first."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(Limits):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise InputError(f"it must be a number greater than 0, not {value:g}", argument=field.name)

    @property
    def upload_bytes(self) -> int:
        """Maximum size of an upload, bytes."""
        return int(self.max_upload * 1e6)
