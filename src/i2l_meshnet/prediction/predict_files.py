"""The `predict` command for images: reads images, writes result files, prints a summary."""

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
from i2l_meshnet.models.published import run_code
from i2l_meshnet.prediction.batches import batches, predict_each, read_ahead
from i2l_meshnet.prediction.boxes import BoxFile
from i2l_meshnet.prediction.hands import HandPredictor
from i2l_meshnet.prediction.images import PictureFile, read_photo
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.placing import CONFIDENCE_GATE
from i2l_meshnet.prediction.predictor import NO_DETECTOR, MeshPredictor, Subject
from i2l_meshnet.prediction.results import PicturePrediction
from i2l_meshnet.prediction.staging import is_finished, record_of

WRITERS = 2
"""Threads that draw and write results while the network runs on other images."""


Task = tuple[PictureFile, Path]
"""An image, and the name of its results relative to the output folder."""


class _Tally:
    """Counts results and summarizes them in one line."""

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
        parts += [f"{counted(counts[end], 'picture')} {end}" for end in ("skipped", "failed") if counts[end]]
        if counts["pictures"] or counts["skipped"]:
            parts.append(f"results in {self.options.out}")
        return "; ".join(parts)


def predict_pictures(options: PredictOptions, tasks: Sequence[Task]) -> int:
    """Predict images. Returns the exit code: 0, or 1 if an image could not be read or its results not be written.

    An image that fails is reported in one line, and the other images are predicted. Raises UserError for problems of
    all images, such as an output folder that cannot be written.
    """
    tally = _Tally(options)
    boxes = None
    if options.people.boxes is not None:
        boxes = boxes_for(options.people.boxes, [picture for picture, _ in tasks], options.people.max_people)
    require_writable(options.out)
    pending: list[Task] = []
    for picture, name in tasks:
        base = options.out / name
        if is_finished(base) and not options.output.overwrite:
            message(f"skipped {picture.path}: {record_of(base)} exists; --overwrite replaces it")
        elif boxes is not None and boxes.of(picture.path, picture.relative) is None:
            message(f"skipped {picture.path}: {boxes.path} has no boxes for it")
        else:
            pending.append((picture, name))
            continue
        tally.counts["skipped"] += 1
    if pending:
        predictor = load_predictor(options, boxes)
        with progress("predicting", len(pending), lines=False) as bar:
            for (picture, _), result in _saved(_predicted(pending, predictor, options, boxes), options):
                _report(picture, result, tally)
                bar.advance()
    output(tally.summary())
    return 1 if tally.counts["failed"] else 0


def load_predictor(options: PredictOptions, boxes: BoxFile | None) -> MeshPredictor:
    """The predictor for the options. Prints a warning if the detector is needed and has not been fetched."""
    network, people = options.network, options.people
    run_code(network.code)
    if people.hand is not None:
        side = None if people.hand == "any" else people.hand
        weights = people.hand_weights or network.weights
        return HandPredictor.load(
            weights, network.device_name, network.body_dir, side, network.batch_size, network.runtime
        )
    hands = None
    if people.hands:
        hands = HandPredictor.load(
            people.hand_weights, network.device_name, network.body_dir, batch_size=network.batch_size
        )
    detect = people.detect and boxes is None
    if detect and assets.find("detector") is None:
        message(f"warning: {NO_DETECTOR}")
        detect = False
    predictor = MeshPredictor.load(
        network.weights,
        network.device_name,
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
    """The boxes in a file, at most `max_people` per image.

    Raises InputError if it has boxes for no image or too many for one image, FileError for another file.
    """
    boxes = BoxFile(path, max_people)
    if boxes.for_one_picture and len(pictures) > 1:
        raise InputError(f"{path} has no image names, but there are {len(pictures)} images", argument="boxes")
    if all(boxes.of(picture.path, picture.relative) is None for picture in pictures):
        raise InputError(f"{path} names no image of this run, such as {pictures[0].path.name}", argument="boxes")
    return boxes


def _predicted(
    tasks: Sequence[Task], predictor: MeshPredictor, options: PredictOptions, boxes: BoxFile | None
) -> Iterator[tuple[Task, PicturePrediction | UserError]]:
    """Predict the images of all tasks."""

    def load(task: Task) -> Subject:
        picture, name = task
        given = None if boxes is None else boxes.of(picture.path, picture.relative)
        photo = read_photo(picture.path, options.input.max_pixels)
        return predictor.prepare(photo, picture.path.name, name.name, given, options.camera)

    for batch in batches(read_ahead(tasks, load), options.network.batch_size):
        yield from predict_each(batch, predictor, options.people.root_depth)


def _saved(
    predictions: Iterable[tuple[Task, PicturePrediction | UserError]], options: PredictOptions
) -> Iterator[tuple[Task, PicturePrediction | UserError]]:
    """The predictions, in order, after their files are written; an error if the files could not be written."""

    def save(item: tuple[Task, PicturePrediction | UserError]) -> PicturePrediction:
        (_, name), result = item
        if isinstance(result, UserError):
            raise result
        result.save((options.out / name).parent, options.output)
        return result

    for (task, _), result in read_ahead(predictions, save, WRITERS, options.network.batch_size):
        yield task, result


def _report(picture: PictureFile, result: PicturePrediction | UserError, tally: _Tally) -> None:
    """Count an image, and print a line if it failed or no person was found."""
    path, people = picture.path, tally.options.people
    if isinstance(result, TakenError):
        # Another process wrote these results, or is writing them.
        tally.counts["skipped"] += 1
        message(f"skipped {path}: {result}")
    elif isinstance(result, UserError):
        tally.counts["failed"] += 1
        message(f"failed: {result}" if str(path) in str(result) else f"failed: {path}: {result}")
    else:
        tally.add(result)
        if not result.people:
            whole = "--no-detect uses the whole image, --boxes a box"
            advice = whole if people.hand is None else "--boxes gives the box to search"
            message(f"no {people.subject} found in {path}; {advice}")


def require_writable(folder: Path) -> None:
    """Create the folder if it does not exist. Raises FileError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(f"cannot write results in {folder}: {error.strerror}; choose another folder") from error


def result_names(pictures: Sequence[PictureFile]) -> list[Path]:
    """A unique name for each image's results, relative to the output folder, without suffix.

    The name is the image's own, in the same subfolder as in the input folder. Images with the same name get their
    format added (`x_jpg`, `x_png`), then the names of their folders (`a_x_jpg`), then a number. Names that differ only
    in letter case count as the same, because some file systems do not distinguish them.
    """
    level = [0] * len(pictures)
    while True:
        names = [_name_at(picture, step) for picture, step in zip(pictures, level, strict=True)]
        shared = Counter(os.fspath(name).casefold() for name in names)
        clash = [shared[os.fspath(name).casefold()] > 1 for name in names]
        if not any(clash):
            return names
        if max(level) > max(len(picture.path.resolve().parts) for picture in pictures) + 1:
            numbered = enumerate(zip(names, clash, strict=True))
            return [name.with_name(f"{name.name}_{index}") if clashes else name for index, (name, clashes) in numbered]
        level = [step + clashes for step, clashes in zip(level, clash, strict=True)]


def _name_at(picture: PictureFile, level: int) -> Path:
    """level: 0 for the name, 1 to add the format, 2 or more to add `level - 1` folders."""
    stem, suffix = picture.relative.stem, picture.relative.suffix[1:].lower()
    if level == 0:
        return picture.relative.with_name(stem)
    folders = picture.path.resolve().parent.parts[1:][-(level - 1) :] if level > 1 else ()
    return picture.relative.with_name("_".join(part for part in (*folders, stem, suffix) if part))
