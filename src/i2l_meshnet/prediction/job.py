"""The `predict` command: pictures in, result files out, one line at the end."""

import dataclasses
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import Positional

from i2l_meshnet import assets
from i2l_meshnet.errors import FileError, InputError, TakenError, UserError
from i2l_meshnet.models.exported import Runtime
from i2l_meshnet.pictures import MAX_PIXELS
from i2l_meshnet.precision import Precision
from i2l_meshnet.prediction.batches import answers, batches, read_ahead
from i2l_meshnet.prediction.boxes import BoxFile
from i2l_meshnet.prediction.detect import DEFAULT_THRESHOLD
from i2l_meshnet.prediction.hands import HandPredictor
from i2l_meshnet.prediction.images import Picture, find_pictures, read_photo
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.predictor import CONFIDENCE_GATE, NO_DETECTOR, MeshPredictor, Subject
from i2l_meshnet.prediction.results import MeshFormat, MeshKind, PicturePrediction, SaveOptions
from i2l_meshnet.prediction.staging import is_finished, record_of

WRITERS = 2
"""Threads that draw and write results while the network is at work on other pictures."""


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Turn photos of people into 3D meshes."""

    inputs: Positional[tuple[str, ...]]
    """Pictures, folders of pictures, or patterns in quotes such as "photos/*.jpg"."""
    out: Path = Path("results")
    """Folder for the results; it is made if it is missing."""
    weights: Path | None = None
    """Checkpoint of another network, or what `export` wrote; the one that ships with the package if not given."""
    runtime: Runtime | None = None
    """What computes the network: PyTorch, or ONNX Runtime or OpenVINO for what `export` wrote; told by the file if not
    given."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for a network that predicts them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto takes a CUDA device where there is one."""
    precision: Precision = "fp32"
    """fp16, bf16: most convolutions in half precision, on a device that computes in it. Adds about 1 mm of error with
    fp16, a few mm with bf16. Not for the default network."""
    recursive: bool = False
    """Look into the subfolders of folders too."""
    boxes: Path | None = None
    """JSON file with people's boxes (x, y, width, height; pixels), in place of the detector; see docs/predict.md."""
    detect: bool = True
    """Find people with the detector; --no-detect takes each whole picture as one person."""
    score: float = DEFAULT_THRESHOLD
    """Least score of a detected person, 0 to 1."""
    focal: float | None = None
    """Focal length in pixels, the principal point being the centre; else the photo's EXIF data, else --fov."""
    intrinsics: tuple[float, float, float, float] | None = None
    """Camera matrix as fx fy cx cy, pixels."""
    fov: float | None = None
    """Angle that the photo's longer side spans, degrees; 55 where nothing is known."""
    root_depth: float | None = None
    """Distance of each person's root joint along the optical axis, metres; solved from the mesh if not given."""
    formats: tuple[MeshFormat, ...] = ("obj", "ply", "glb")
    """Mesh formats; rigged-glb has skeleton and skin weights."""
    meshes: tuple[MeshKind, ...] = ("lixel", "param")
    """Which meshes to write: the network's own (lixel), the body model's (param)."""
    show: MeshKind = "param"
    """Which mesh the pictures show: the body model's if the network predicts it, or the network's own (lixel)."""
    pictures: bool = True
    """Draw overlay, side view, top view and joints."""
    max_side: int = 2048
    """Longer side of the drawn pictures, pixels; 0 keeps the photo's."""
    max_pixels: int = MAX_PIXELS
    """Refuse pictures of more pixels than this."""
    max_people: int = 100
    """Most people in one picture; of more, those that the detector is surest of are taken."""
    batch_size: int = 16
    """Most people in one pass of the network."""
    overwrite: bool = False
    """Replace results that are there already; else their pictures are skipped."""
    hands: bool = False
    """Look at people's hands too and give them meshes of their own; see docs/hands.md."""
    hand: Literal["left", "right", "any"] | None = None
    """The pictures show hands alone: left ones, right ones, or any."""
    hand_weights: Path | None = None
    """Checkpoint of another hand network, such as a published one of MANO, for --hands and --hand."""
    parquet: str | None = None
    """Write a table with a row for each person into this folder (a path or an address such as s3://bucket/people), in
    place of files for each picture; INPUTS may be addresses too. See docs/fleet.md."""
    engine: Literal["local", "ray"] = "local"
    """Who makes the table: this process, or the workers of a Ray cluster."""
    workers: int = 0
    """Ray workers, each with a network of its own; 0: as many as the cluster has CPUs, or GPUs for."""
    gpus_per_worker: float = 0.0
    """GPUs of a Ray worker; 0.5 lets two share one."""

    def __post_init__(self) -> None:
        if self.root_depth is not None and not 0 < self.root_depth < float("inf"):
            raise InputError(f"--root-depth is a distance greater than 0 metres, not {self.root_depth:g}")
        if not 0 < self.score <= 1:
            raise InputError(f"--score lies between 0 and 1, not {self.score:g}")
        if "rigged-glb" in self.formats and "param" not in self.meshes:
            raise InputError("--formats rigged-glb is of the body model's mesh: leave --meshes out, or add param to it")
        if min(self.batch_size, self.max_pixels, self.max_people) < 1 or self.max_side < 0:
            raise InputError("--batch-size, --max-pixels and --max-people are at least 1, --max-side at least 0")
        if self.engine == "ray" and self.parquet is None:
            raise InputError("--engine ray writes a table; name its folder with --parquet")
        if self.hands and self.hand is not None:
            raise InputError("--hands looks for people and their hands, --hand for hands alone; give one of them")
        if self.hand_weights is not None and not self.hands and self.hand is None:
            raise InputError("--hand-weights is for --hands or --hand; give one of them")
        if self.precision != "fp32" and (self.hand is not None or self.engine == "ray"):
            raise InputError(
                "--precision is of the network of whole people in one process: leave out --hand, --engine ray"
            )
        if self.workers < 0 or not 0 <= self.gpus_per_worker < float("inf"):
            raise InputError("--workers and --gpus-per-worker are 0 or more")

    @property
    def subject(self) -> str:
        """What pictures are searched for: "person" or "hand"."""
        return "person" if self.hand is None else "hand"

    @property
    def camera(self) -> Intrinsics:
        """What the options say about the camera."""
        return Intrinsics(self.focal, self.intrinsics, self.fov)

    @property
    def saving(self) -> SaveOptions:
        """What the options say about the files to write."""
        return SaveOptions(self.formats, self.meshes, self.pictures, self.show, self.max_side, self.overwrite)


@dataclasses.dataclass(frozen=True)
class _Task:
    """A picture and the name of its results, relative to the output folder."""

    picture: Picture
    name: Path


class _Tally:
    """What has happened so far, and the summary of it."""

    def __init__(self, options: PredictOptions) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self.errors: list[float] = []
        self.start = time.perf_counter()

    def add(self, prediction: PicturePrediction) -> None:
        self.counts["pictures"] += 1
        self.counts["people"] += len(prediction)
        self.counts["unreliable"] += sum(not person.reliable for person in prediction)
        self.counts["hands"] += sum(len(person.hands) for person in prediction)
        self.errors += [person.reprojection_error[0] for person in prediction if person.reprojection_error]

    def summary(self, out: Path) -> str:
        counts, one = self.counts, self.options.subject
        found = counted(counts["people"], *(("person", "people") if one == "person" else (one,)))
        if self.options.hands:
            found += f", {counted(counts['hands'], 'hand')}"
        parts = [f"{counted(counts['pictures'], 'picture')}, {found}, {time.perf_counter() - self.start:.1f} s"]
        if self.errors:
            parts.append(f"reprojection error {np.median(self.errors):.1f} px (median)")
        if counts["unreliable"]:
            people = counted(counts["unreliable"], "person", "people")
            parts.append(f"{people} unreliable (mean keypoint confidence below {CONFIDENCE_GATE:g})")
        if counts["empty"]:
            parts.append(f"no {one} in {counted(counts['empty'], 'picture')}")
        if counts["skipped"]:
            parts.append(f"{counted(counts['skipped'], 'picture')} skipped")
        if counts["failed"]:
            parts.append(f"{counted(counts['failed'], 'picture')} failed")
        if counts["pictures"] or counts["skipped"]:
            parts.append(f"results in {out}")
        return "; ".join(parts)


def run(options: PredictOptions) -> int:
    """Does the job and returns the exit code: 0, or 1 if a picture could not be read or written.

    A picture that fails is reported in one line and the others go on. Raises UserError for what concerns all
    pictures: options that do not fit, no input, no network, an output folder that cannot be written.
    """
    pictures = find_pictures(options.inputs, options.recursive, options.out)
    return predict_pictures(options, pictures, result_names(pictures))


def predict_pictures(options: PredictOptions, pictures: Sequence[Picture], names: Sequence[Path]) -> int:
    """`run` for pictures that have been found and the names of their results, relative to the output folder."""
    tally, console = _Tally(options), Console(stderr=True, highlight=False)
    intrinsics = options.camera
    boxes = None if options.boxes is None else boxes_for(options.boxes, pictures, options.max_people)
    require_writable(options.out)
    tasks = []
    for picture, name in zip(pictures, names, strict=True):
        base = options.out / name
        if is_finished(base) and not options.overwrite:
            say(console, f"skipped {picture.path}: {record_of(base)} is there already; --overwrite replaces it")
            tally.counts["skipped"] += 1
        elif boxes is not None and boxes.of(picture.path, picture.place) is None:
            say(console, f"skipped {picture.path}: {boxes.path} has no boxes for it")
            tally.counts["skipped"] += 1
        else:
            tasks.append(_Task(picture, name))
    if tasks:
        predictor = load_predictor(options, boxes, console)
        progress = Progress(
            TextColumn("predicting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=len(tasks) < 2 or not console.is_terminal,
        )
        with progress:
            bar = progress.add_task("predict", total=len(tasks))
            found = _answered(tasks, predictor, options, boxes, intrinsics)
            for task, saved in _saved(found, options):
                _report(task, saved, options, tally, console)
                progress.update(bar, advance=1)
    Console(highlight=False).print(tally.summary(options.out), markup=False, soft_wrap=True)
    return 1 if tally.counts["failed"] else 0


def load_predictor(options: PredictOptions, boxes: BoxFile | None, console: Console) -> MeshPredictor:
    """The network that the options name, and the detector unless boxes are given; says so if there is none."""
    if options.hand is not None:
        side = None if options.hand == "any" else options.hand
        weights = options.hand_weights or options.weights
        return HandPredictor.load(weights, options.device, options.body_dir, side, options.batch_size, options.runtime)
    hands = None
    if options.hands:
        hands = HandPredictor.load(
            options.hand_weights, options.device, options.body_dir, batch_size=options.batch_size
        )
    detect = options.detect and boxes is None
    if detect and assets.find("detector") is None:
        say(console, f"warning: {NO_DETECTOR}")
        detect = False
    predictor = MeshPredictor.load(
        options.weights,
        options.device,
        options.body_dir,
        detect,
        options.batch_size,
        options.score,
        hands,
        options.precision,
        options.runtime,
    )
    if predictor.detector is not None:
        predictor.detector.most = options.max_people
    return predictor


def boxes_for(path: Path, pictures: Sequence[Picture], most: int) -> BoxFile:
    """The file's boxes, at most `most` of a picture.

    Raises InputError where they are for none of the pictures or too many for one, FileError for no box file.
    """
    boxes = BoxFile(path, most)
    if boxes.for_one_picture and len(pictures) > 1:
        raise InputError(
            f"{path} is a list of boxes for one picture, but there are {len(pictures)}; name the pictures in it"
        )
    if all(boxes.of(picture.path, picture.place) is None for picture in pictures):
        raise InputError(f"{path} names none of the pictures, such as {pictures[0].path.name}; check its file names")
    return boxes


def _answered(
    tasks: Sequence[_Task],
    predictor: MeshPredictor,
    options: PredictOptions,
    boxes: BoxFile | None,
    intrinsics: Intrinsics,
) -> Iterator[tuple[_Task, PicturePrediction | UserError]]:
    """The answers to all pictures."""

    def load(task: _Task) -> Subject:
        path = task.picture.path
        given = None if boxes is None else boxes.of(path, task.picture.place)
        photo = read_photo(path, options.max_pixels)
        return predictor.prepare(photo, path.name, task.name.name, given, intrinsics)

    for batch in batches(read_ahead(tasks, load), options.batch_size):
        yield from answers(batch, predictor, options.root_depth)


def _saved(
    found: Iterable[tuple[_Task, PicturePrediction | UserError]], options: PredictOptions
) -> Iterator[tuple[_Task, PicturePrediction | UserError]]:
    """What was found, in order, when its files are written; an error in place of what could not be."""

    def save(item: tuple[_Task, PicturePrediction | UserError]) -> PicturePrediction:
        task, answer = item
        if isinstance(answer, UserError):
            raise answer
        answer.save((options.out / task.name).parent, options.saving)
        return answer

    for (task, _), saved in read_ahead(found, save, WRITERS, options.batch_size):
        yield task, saved


def _report(
    task: _Task, saved: PicturePrediction | UserError, options: PredictOptions, tally: _Tally, console: Console
) -> None:
    """Counts a picture; says so if it failed or showed nobody."""
    if isinstance(saved, TakenError):
        # Another process was faster, or is at it.
        tally.counts["skipped"] += 1
        say(console, f"skipped {task.picture.path}: {saved}")
    elif isinstance(saved, UserError):
        tally.counts["failed"] += 1
        shown = str(saved) if str(task.picture.path) in str(saved) else f"{task.picture.path}: {saved}"
        say(console, f"failed: {shown}")
    else:
        tally.add(saved)
        if not saved.people:
            tally.counts["empty"] += 1
            whole = "--no-detect takes the whole picture, --boxes a box"
            advice = whole if options.hand is None else "--boxes tells where to look"
            say(console, f"no {options.subject} found in {task.picture.path}; {advice}")


def require_writable(folder: Path) -> None:
    """Makes the folder if it is missing. Raises FileError, in one line, if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(
            f"cannot write results in {folder}: {error.strerror}; choose another folder with --out"
        ) from error


def result_names(pictures: Sequence[Picture]) -> list[Path]:
    """A name for each picture's results, relative to the output folder, without ending; no two are the same.

    The name is the picture's own, below the same subfolder that it had in an input folder. Pictures that would share
    one get their format added (`x_jpg`, `x_png`), then the names of the folders they lie in (`a_x_jpg`), then a
    number. Letter case does not keep names apart: it does not on every file system.
    """
    level = [0] * len(pictures)
    while True:
        names = [_name_at(picture, step) for picture, step in zip(pictures, level, strict=True)]
        shared = Counter(os.fspath(name).casefold() for name in names)
        clash = [shared[os.fspath(name).casefold()] > 1 for name in names]
        if not any(clash):
            return names
        deepest = max(len(picture.path.resolve().parts) for picture in pictures) + 1
        if max(level) > deepest:
            return [
                name.with_name(f"{name.name}_{index}") if shared_name else name
                for index, (name, shared_name) in enumerate(zip(names, clash, strict=True))
            ]
        level = [step + shared_name for step, shared_name in zip(level, clash, strict=True)]


def _name_at(picture: Picture, level: int) -> Path:
    stem, ending = picture.place.stem, picture.place.suffix[1:].lower()
    if level == 0:
        return picture.place.with_name(stem)
    parts = [*([] if level < 2 else picture.path.resolve().parent.parts[1:][-(level - 1) :]), stem, ending]
    return picture.place.with_name("_".join(part for part in parts if part))


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 person", "2 people"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def say(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, soft_wrap=True)
