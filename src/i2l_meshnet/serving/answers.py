"""From an upload to result files and a JSON answer: what the worker thread does."""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.files import atomic_path
from i2l_meshnet.prediction.export import write_scene
from i2l_meshnet.prediction.images import (
    Photo,
    TooManyPixelsError,
    UnknownFormatError,
    read_photo,
    require_picture,
)
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.overlay import COLORS
from i2l_meshnet.prediction.predictor import MeshPredictor, Subject
from i2l_meshnet.prediction.results import MeshFormat, MeshKind, PicturePrediction, SaveOptions
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.work import Job, Refusal

LEAST_SCORE = 0.05
"""The detector keeps what scores so much; each request draws its own line above that."""
SHOWN_SIDE = 1600
"""Longer side of the drawn pictures, pixels."""
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
"""Pillow's names of what is taken; it knows more, some of which (EPS) start other programs."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_NAME = "result"


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a request asks for: the camera as in `Intrinsics`, the least score of a person, mesh formats."""

    camera: Intrinsics
    score: float
    formats: tuple[MeshFormat, ...]


def require_readable(job: Job, limits: Limits) -> None:
    """Looks at the first bytes of an upload, before it waits its turn. Raises Refusal."""
    with job.upload.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS:
        job.upload = job.upload.rename(job.upload.with_suffix(".heic"))
    try:
        name = require_picture(job.upload, limits.max_pixels)
    except FileError as error:
        raise _refusal(error, job) from error
    if name not in FORMATS:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{name} pictures are not taken; send a JPEG, PNG or WebP")


class PhotoWork:
    """Does jobs: reads the photo, finds people, runs the network, draws and writes."""

    def __init__(self, predictor: MeshPredictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits

    def __call__(self, job: Job) -> None:
        """Leaves the results in the job's folder, and no upload. Raises Refusal."""
        wish: Wish = job.request
        try:
            job.report("reading the picture", 0.05)
            photo = self._read(job)
            job.report("looking for people", 0.15)
            subject, left_out = self._subject(photo, wish)
            job.report(_fitting(len(subject.people)), 0.4)
            prediction = self._predictor.predict([subject])[0]
        except UserError as error:
            raise _refusal(error, job) from error
        job.report("drawing and writing the meshes", 0.6)
        try:
            self._write(prediction, left_out, job)
        except FileError as error:
            raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "the server could not write the results") from error

    def _read(self, job: Job) -> Photo:
        try:
            return read_photo(job.upload, self._limits.max_pixels)
        finally:
            job.upload.unlink(missing_ok=True)

    def _subject(self, photo: Photo, wish: Wish) -> tuple[Subject, int]:
        """Who is answered, and how many more were found."""
        subject = self._predictor.prepare(photo, name=_NAME, intrinsics=wish.camera)
        found = [person for person in subject.people if person.score >= wish.score]
        chosen = tuple(found[: self._limits.max_people])
        return dataclasses.replace(subject, people=chosen), len(found) - len(chosen)

    def _write(self, prediction: PicturePrediction, left_out: int, job: Job) -> None:
        wish: Wish = job.request
        prediction.save(job.folder, SaveOptions(formats=wish.formats, max_side=SHOWN_SIDE), _NAME)
        record = json.loads((job.folder / f"{_NAME}.json").read_bytes())
        record["files"] |= _write_scenes(prediction, job.folder)
        record["files"]["record"] = f"{_NAME}.json"
        job.files = {path.name: path for path in sorted(job.folder.iterdir())}
        answer: dict[str, Any] = {"id": job.id, "keep_seconds": self._limits.keep_seconds, "left_out": left_out}
        job.answer = json.dumps(answer | linked(record, f"/jobs/{job.id}/files/")).encode()


def _fitting(count: int) -> str:
    return f"fitting {count} {'person' if count == 1 else 'people'}"


def _write_scenes(prediction: PicturePrediction, folder: Path) -> dict[str, str]:
    """One .glb of everybody for each kind of mesh, in the overlay's colours; their names."""
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


def linked(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    """A record of docs/outputs.md with addresses in place of the names of files."""
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
    """Packs files into a .zip, unless it is there already. Raises FileError."""
    if path.exists():
        return
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as pack:
        for file in files:
            pack.write(file, file.name)


def _refusal(error: UserError, job: Job) -> Refusal:
    """What is wrong with an upload, told without the place where it was kept."""
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, UnknownFormatError):
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    elif isinstance(error, TooManyPixelsError):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Refusal(status, str(error).replace(str(job.upload), "the picture"))
