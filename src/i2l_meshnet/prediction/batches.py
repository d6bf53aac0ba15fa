"""Predicts many images: reads ahead in threads, makes batches, and isolates an error to its image."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from i2l_meshnet.errors import UserError
from i2l_meshnet.prediction.predictor import MeshPredictor, Subject
from i2l_meshnet.prediction.results import PicturePrediction

MAX_BATCH_PIXELS = 60_000_000
"""A batch ends when its images have this many pixels, even if they show few people."""
READ_AHEAD = 2

Key = TypeVar("Key")
"""The caller's name of an image."""
Value = TypeVar("Value")


def read_ahead(
    keys: Iterable[Key], load: Callable[[Key], Value], threads: int = 1, ahead: int = READ_AHEAD
) -> Iterator[tuple[Key, Value | UserError]]:
    """Call `load` for each key in threads. Yields keys and results in order; a UserError is yielded as a result.

    ahead: maximum number of results that are being made or wait for the caller.
    """

    def attempt(key: Key) -> Value | UserError:
        try:
            return load(key)
        except UserError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Key, Future[Value | UserError]]] = deque()
        try:
            for key in keys:
                waiting.append((key, pool.submit(attempt, key)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def batches(
    items: Iterable[tuple[Key, Subject | UserError]], batch_size: int
) -> Iterator[list[tuple[Key, Subject | UserError]]]:
    """Group images into batches of about `batch_size` people and at most about `MAX_BATCH_PIXELS`."""
    batch: list[tuple[Key, Subject | UserError]] = []
    people = pixels = 0
    for item in items:
        batch.append(item)
        if isinstance(item[1], Subject):
            people += len(item[1].people)
            pixels += item[1].photo.width * item[1].photo.height
        if people >= batch_size or pixels >= MAX_BATCH_PIXELS or len(batch) >= batch_size:
            yield batch
            batch, people, pixels = [], 0, 0
    if batch:
        yield batch


def predict_each(
    batch: Sequence[tuple[Key, Subject | UserError]], predictor: MeshPredictor, root_depth: float | None = None
) -> list[tuple[Key, PicturePrediction | UserError]]:
    """Predict the images of a batch, in order. An error of one image does not affect the others.

    root_depth: metres, for all people.
    """

    def alone(subject: Subject) -> PicturePrediction | UserError:
        try:
            return predictor.predict([subject], root_depth)[0]
        except UserError as error:
            return error

    subjects = [subject for _, subject in batch if isinstance(subject, Subject)]
    try:
        found: list[PicturePrediction | UserError] = [*predictor.predict(subjects, root_depth)]
    except UserError:
        found = [alone(subject) for subject in subjects]
    results = iter(found)
    return [(key, next(results) if isinstance(subject, Subject) else subject) for key, subject in batch]
