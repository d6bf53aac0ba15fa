"""The `predict` command for images: reads them, writes result files, prints a summary."""

import dataclasses
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from i2l_meshnet import assets
from i2l_meshnet.console import counted, message, output, progress
from i2l_meshnet.errors import FileError, InputError, TakenError, UserError
from i2l_meshnet.prediction.batches import batches, predict_each, read_ahead
from i2l_meshnet.prediction.boxes import BoxFile
from i2l_meshnet.prediction.hands import HandPredictor
from i2l_meshnet.prediction.images import PictureFile, find_pictures, read_photo
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.placing import CONFIDENCE_GATE
from i2l_meshnet.prediction.predictor import NO_DETECTOR, MeshPredictor, Subject
from i2l_meshnet.prediction.results import PicturePrediction
from i2l_meshnet.prediction.staging import is_finished, record_of

WRITERS = 2
"""Threads that draw and write results while the network works on other images."""


@dataclasses.dataclass(frozen=True)
class _Task:
    """An image and the name of its results, relative to the output folder."""

    picture: PictureFile
    name: Path


class _Tally:
    """Counts results, and summarizes them in one line."""

    def __init__(self, options: PredictOptions) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self.errors: list[float] = []
        self.start = time.perf_counter()

    def add(self, prediction: PicturePrediction) -> None:
        self.counts["pictures"] += 1
        self.counts["people"] += len(prediction)
        self.counts["empty"] += not prediction.people
        self.counts["unreliable"] += sum(not person.reliable for person in prediction)
        self.counts["hands"] += sum(len(person.hands) for person in prediction)
        self.errors += [person.reprojection_error[0] for person in prediction if person.reprojection_error]

    def summary(self) -> str:
        counts, subject = self.counts, self.options.people.subject
        found = counted(counts["people"], subject, "people" if subject == "person" else None)
        if self.options.people.hands:
            found += f", {counted(counts['hands'], 'hand')}"
        parts = [f"{counted(counts['pictures'], 'picture')}, {found}, {time.perf_counter() - self.start:.1f} s"]
        if self.errors:
            parts.append(f"reprojection error {np.median(self.errors):.1f} px (median)")
        if counts["unreliable"]:
            people = counted(counts["unreliable"], "person", "people")
            parts.append(f"{people} unreliable (mean keypoint confidence below {CONFIDENCE_GATE:g})")
        if counts["empty"]:
            parts.append(f"no {subject} in {counted(counts['empty'], 'picture')}")
        for what in ("skipped", "failed"):
            if counts[what]:
                parts.append(f"{counted(counts[what], 'picture')} {what}")
        if counts["pictures"] or counts["skipped"]:
            parts.append(f"results in {self.options.out}")
        return "; ".join(parts)


def run(options: PredictOptions) -> int:
    """Predicts all images and returns the exit code: 0, or 1 if an image could not be read or its results written.

    An image that fails is reported in one line, and the others are predicted. Raises UserError for what concerns all
    images: no input, no network, an output folder that cannot be written.
    """
    pictures = find_pictures(options.input.inputs, options.input.recursive, options.out)
    return predict_pictures(options, pictures, result_names(pictures))


def predict_pictures(options: PredictOptions, pictures: Sequence[PictureFile], names: Sequence[Path]) -> int:
    """As `run`, for images that have been found. names: of their results, relative to the output folder."""
    tally = _Tally(options)
    boxes = None
    if options.people.boxes is not None:
        boxes = boxes_for(options.people.boxes, pictures, options.people.max_people)
    require_writable(options.out)
    tasks = []
    for picture, name in zip(pictures, names, strict=True):
        base = options.out / name
        if is_finished(base) and not options.output.overwrite:
            message(f"skipped {picture.path}: {record_of(base)} exists; --overwrite replaces it")
            tally.counts["skipped"] += 1
        elif boxes is not None and boxes.of(picture.path, picture.relative) is None:
            message(f"skipped {picture.path}: {boxes.path} has no boxes for it")
            tally.counts["skipped"] += 1
        else:
            tasks.append(_Task(picture, name))
    if tasks:
        predictor = load_predictor(options, boxes)
        with progress("predicting", len(tasks), lines=False) as bar:
            for task, saved in _saved(_answered(tasks, predictor, options, boxes), options):
                _report(task, saved, tally)
                bar.advance()
    output(tally.summary())
    return 1 if tally.counts["failed"] else 0


def load_predictor(options: PredictOptions, boxes: BoxFile | None) -> MeshPredictor:
    """The predictor that the options describe, with the detector unless boxes are given; warns if it is missing."""
    network, people = options.network, options.people
    if people.hand is not None:
        side = None if people.hand == "any" else people.hand
        weights = people.hand_weights or network.weights
        return HandPredictor.load(weights, network.device, network.body_dir, side, network.batch_size, network.runtime)
    hands = None
    if people.hands:
        hands = HandPredictor.load(people.hand_weights, network.device, network.body_dir, batch_size=network.batch_size)
    detect = people.detect and boxes is None
    if detect and assets.find("detector") is None:
        message(f"warning: {NO_DETECTOR}")
        detect = False
    predictor = MeshPredictor.load(
        network.weights,
        network.device,
        network.body_dir,
        detect,
        network.batch_size,
        people.score,
        hands,
        network.precision,
        network.runtime,
    )
    if predictor.detector is not None:
        predictor.detector.max_people = people.max_people
    return predictor


def boxes_for(path: Path, pictures: Sequence[PictureFile], max_people: int) -> BoxFile:
    """The file's boxes, at most `max_people` per image.

    Raises InputError if it has boxes for none of the images or too many for one, FileError if it is no box file.
    """
    boxes = BoxFile(path, max_people)
    if boxes.for_one_picture and len(pictures) > 1:
        raise InputError(
            f"{path} is a list of boxes for one picture, but there are {len(pictures)}; name the pictures in it"
        )
    if all(boxes.of(picture.path, picture.relative) is None for picture in pictures):
        raise InputError(f"{path} names none of the pictures, such as {pictures[0].path.name}; check its file names")
    return boxes


def _answered(
    tasks: Sequence[_Task], predictor: MeshPredictor, options: PredictOptions, boxes: BoxFile | None
) -> Iterator[tuple[_Task, PicturePrediction | UserError]]:
    """The predictions of all images."""

    def load(task: _Task) -> Subject:
        path = task.picture.path
        given = None if boxes is None else boxes.of(path, task.picture.relative)
        photo = read_photo(path, options.input.max_pixels)
        return predictor.prepare(photo, path.name, task.name.name, given, options.camera)

    for batch in batches(read_ahead(tasks, load), options.network.batch_size):
        yield from predict_each(batch, predictor, options.people.root_depth)


def _saved(
    found: Iterable[tuple[_Task, PicturePrediction | UserError]], options: PredictOptions
) -> Iterator[tuple[_Task, PicturePrediction | UserError]]:
    """The predictions, in order, when their files are written; an error if they could not be."""

    def save(item: tuple[_Task, PicturePrediction | UserError]) -> PicturePrediction:
        task, answer = item
        if isinstance(answer, UserError):
            raise answer
        answer.save((options.out / task.name).parent, options.output)
        return answer

    for (task, _), saved in read_ahead(found, save, WRITERS, options.network.batch_size):
        yield task, saved


def _report(task: _Task, saved: PicturePrediction | UserError, tally: _Tally) -> None:
    """Counts an image, and prints a line if it failed or nobody was found."""
    path, people = task.picture.path, tally.options.people
    if isinstance(saved, TakenError):
        # Another process wrote these results, or is writing them.
        tally.counts["skipped"] += 1
        message(f"skipped {path}: {saved}")
    elif isinstance(saved, UserError):
        tally.counts["failed"] += 1
        message(f"failed: {saved}" if str(path) in str(saved) else f"failed: {path}: {saved}")
    else:
        tally.add(saved)
        if not saved.people:
            whole = "--no-detect uses the whole picture, --boxes a box"
            advice = whole if people.hand is None else "--boxes says where to look"
            message(f"no {people.subject} found in {path}; {advice}")


def require_writable(folder: Path) -> None:
    """Creates the folder if it does not exist. Raises FileError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(
            f"cannot write results in {folder}: {error.strerror}; choose another folder with --out"
        ) from error


def result_names(pictures: Sequence[PictureFile]) -> list[Path]:
    """A unique name for each image's results, relative to the output folder, without suffix.

    The name is the image's own, in the same subfolder as in the input folder. Images that would share a name get
    their format added (`x_jpg`, `x_png`), then the names of their folders (`a_x_jpg`), then a number. Names that
    differ only in letter case count as the same: some file systems do not distinguish them.
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


def _name_at(picture: PictureFile, level: int) -> Path:
    stem, ending = picture.relative.stem, picture.relative.suffix[1:].lower()
    if level == 0:
        return picture.relative.with_name(stem)
    parts = [*([] if level < 2 else picture.path.resolve().parent.parts[1:][-(level - 1) :]), stem, ending]
    return picture.relative.with_name("_".join(part for part in parts if part))
