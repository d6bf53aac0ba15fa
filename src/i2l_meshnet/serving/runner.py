"""The work on a job: from an upload to result files and a JSON answer."""

import dataclasses
import json
import time
import zipfile
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from i2l_meshnet.console import counted
from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.io import atomic_path
from i2l_meshnet.prediction.images import TooManyPixelsError, UnknownFormatError, read_photo, require_picture
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.mesh_files import write_scene
from i2l_meshnet.prediction.options import InputOptions, PredictOptions
from i2l_meshnet.prediction.overlay import COLORS
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import MeshFormat, MeshKind, PicturePrediction, SaveOptions
from i2l_meshnet.serving.jobs import NO_SPACE, Job, Refusal
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.pipeline import ClipJob
from i2l_meshnet.video.source import Clip

SHOWN_SIDE = 1600
"""Longer side of the drawn pictures, pixels."""
CLIP_SIDE = 960
"""Longer side of drawn videos, pixels."""
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
"""Pillow's names of the image formats that the server accepts."""

_PHOTO_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_NAME = "result"


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """The options of a request: camera, minimum score of a person, mesh formats. clips: whether clips are accepted."""

    camera: Intrinsics
    score: float
    formats: tuple[MeshFormat, ...]
    clips: bool


def require_readable(job: Job, limits: Limits) -> None:
    """Check the header of an upload before it is queued, and set its file extension. Raise Refusal."""
    with job.upload.open("rb") as file:
        ending = _ending(file.read(12))
    job.upload = job.upload.rename(job.upload.with_suffix(ending))
    try:
        if ending in _CLIPS.values():
            _require_clip(job, limits)
            return
        name = require_picture(job.upload, limits.max_pixels)
    except FileError as error:
        raise _refusal(error, job) from error
    if name not in FORMATS:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{name} images are not accepted; send a JPEG, PNG or WebP")


_CLIPS = {b"\x1aE\xdf\xa3": ".mkv", b"RIFF....AVI ": ".avi", b"....ftyp": ".mp4", b"....moov": ".mov"}
"""First bytes of clips (a dot is any byte) → file extension.

FFmpeg must not detect the format itself: it also reads playlists, which can name other files and addresses.
"""


def _ending(start: bytes) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in _PHOTO_BRANDS:
        return ".heic"
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return ".avif"
    for pattern, ending in _CLIPS.items():
        pairs = zip(start.ljust(len(pattern)), pattern, strict=False)
        if all(found == wanted or wanted == ord(".") for found, wanted in pairs):
            return ending
    return ".picture"


def _require_clip(job: Job, limits: Limits) -> None:
    if not job.request.clips:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "clips take long: send them to /jobs")
    clip = Clip(job.upload, limits.max_pixels)
    if clip.frame_count is not None and clip.frame_count > limits.max_clip_length * clip.rate + 1:
        raise _too_long(limits)


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"clips may last {limits.max_clip_length:g} seconds; cut it shorter"
    )


class JobRunner:
    """Runs jobs: reads the upload, predicts people, draws and writes results."""

    def __init__(self, predictor: MeshPredictor, limits: Limits) -> None:
        """predictor: must not be shared, because each job sets the threshold of its detector."""
        self._predictor, self._limits = predictor, limits

    def __call__(self, job: Job) -> None:
        """Write the results into the job's folder and delete the upload. Raise Refusal."""
        request: PredictRequest = job.request
        if self._predictor.detector is not None:
            self._predictor.detector.threshold = request.score
        facts: dict[str, Any] = {"id": job.id, "keep_seconds": self._limits.keep_seconds}
        try:
            more = self._clip(job, request) if job.upload.suffix in _CLIPS.values() else self._photo(job, request)
        except UserError as error:
            raise _refusal(error, job) from error
        job.upload.unlink(missing_ok=True)
        record = json.loads((job.folder / f"{_NAME}.json").read_bytes())
        record["files"] |= more["files"] | {"record": f"{_NAME}.json"}
        job.files = {path.name: path for path in sorted(job.folder.iterdir())}
        job.answer = json.dumps(facts | more | _linked(record, f"/jobs/{job.id}/files/")).encode()

    def _photo(self, job: Job, request: PredictRequest) -> dict[str, Any]:
        """The additions to the record: names of more files, and the number of people left out."""
        job.report("reading the picture", 0.05)
        try:
            photo = read_photo(job.upload, self._limits.max_pixels)
        finally:
            job.upload.unlink(missing_ok=True)
        job.report("looking for people", 0.15)
        subject = self._predictor.prepare(photo, name=_NAME, intrinsics=request.camera)
        chosen = subject.people[: self._limits.max_people]
        job.report(f"fitting {counted(len(chosen), 'person', 'people')}", 0.4)
        prediction = self._predictor.predict([dataclasses.replace(subject, people=chosen)])[0]
        job.report("drawing and writing the meshes", 0.6)
        try:
            prediction.save(job.folder, SaveOptions(formats=request.formats, max_side=SHOWN_SIDE), _NAME)
            return {"left_out": len(subject.people) - len(chosen), "files": _write_scenes(prediction, job.folder)}
        except FileError as error:
            raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "the server could not write the results") from error

    def _clip(self, job: Job, request: PredictRequest) -> dict[str, Any]:
        job.deadline = time.monotonic() + self._limits.max_clip_work
        clip = Clip(job.upload, self._limits.max_pixels)
        max_frames = self._limits.max_clip_length * clip.rate + 1

        def report(task: str, done: int, total: int | None) -> None:
            if done > max_frames:
                raise _too_long(self._limits)
            share = 0.5 * done / max(total or max_frames, done)
            job.report(f"{task}: frame {done} of {total or 'unknown'}", share + (0.45 if task == "drawing" else 0))

        output = SaveOptions(("glb", "bvh"), max_side=CLIP_SIDE)
        options = PredictOptions(InputOptions((_NAME,)), camera=request.camera, output=output)
        ClipJob(clip, job.folder / _NAME, self._predictor, options, ClipOptions(), report=report).run()
        return {"files": {}}


def _write_scenes(prediction: PicturePrediction, folder: Path) -> dict[str, str]:
    """Write one .glb of all people for each kind of mesh, in the overlay's colours. Return the names."""
    names: dict[str, str] = {}
    kinds: tuple[MeshKind, ...] = ("lixel", "param")
    for kind in kinds:
        shown = [i for i in prediction.shown if kind == "lixel" or prediction[i].parametric_mesh is not None]
        if shown:
            names[f"{kind}_scene"] = f"{_NAME}_{kind}_scene.glb"
            surfaces = [prediction[i].surface(kind) for i in shown]
            colors = [COLORS[i % len(COLORS)].astype(int).tolist() for i in shown]
            write_scene(surfaces, colors, folder / names[f"{kind}_scene"])
    return names


def _linked(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The record of docs/outputs.md with URLs instead of file names."""
    people = [
        person
        | {
            "files": {
                kind: {form: prefix + name for form, name in by_format.items()}
                for kind, by_format in person["files"].items()
            }
        }
        for person in record["people"]
    ]
    return record | {"people": people, "files": {what: prefix + name for what, name in record["files"].items()}}


def write_zip(files: Sequence[Path], path: Path) -> None:
    """Pack files into a .zip unless it exists. Raise FileError."""
    if path.exists():
        return
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as pack:
        for file in files:
            pack.write(file, file.name)


def _refusal(error: UserError, job: Job) -> Refusal:
    """The error response for an upload, without its path; 507 if the server's disk is full."""
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_SPACE:
        return Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "the server has no space left for results")
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, UnknownFormatError):
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    elif isinstance(error, TooManyPixelsError):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Refusal(status, str(error).replace(str(job.upload), "the upload").replace(str(job.folder), ""))
