"""Many pictures through one predictor: read ahead, in batches, and one picture's fault costs no other its answer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from i2l_meshnet.errors import UserError
from i2l_meshnet.prediction.predictor import MeshPredictor, Subject
from i2l_meshnet.prediction.results import PicturePrediction

PIXELS_HELD = 60_000_000
"""A batch is closed when its pictures together have so many pixels, however few people they show."""
READ_AHEAD = 2

Key = TypeVar("Key")
"""Whatever the caller knows a picture by."""
Value = TypeVar("Value")


def read_ahead(
    keys: Iterable[Key], load: Callable[[Key], Value], threads: int = 1, ahead: int = READ_AHEAD
) -> Iterator[tuple[Key, Value | UserError]]:
    """What `load` makes of each key, in order, in threads while the caller is at work; a UserError in place of one.

    ahead: how many may be under way or wait for the caller.
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
    """Groups of pictures with about `batch_size` people, or as many as memory should hold."""
    batch: list[tuple[Key, Subject | UserError]] = []
    people = pixels = 0
    for item in items:
        batch.append(item)
        if isinstance(item[1], Subject):
            people += len(item[1].people)
            pixels += item[1].photo.width * item[1].photo.height
        if people >= batch_size or pixels >= PIXELS_HELD or len(batch) >= batch_size:
            yield batch
            batch, people, pixels = [], 0, 0
    if batch:
        yield batch


def answers(
    batch: Sequence[tuple[Key, Subject | UserError]], predictor: MeshPredictor, root_depth: float | None = None
) -> list[tuple[Key, PicturePrediction | UserError]]:
    """The people of each picture of a batch, in order, or why there is no answer. root_depth: metres, of all people."""
    subjects = [subject for _, subject in batch if isinstance(subject, Subject)]
    try:
        found: list[PicturePrediction | UserError] = [*predictor.predict(subjects, root_depth)]
    except UserError:
        found = [_alone(subject, predictor, root_depth) for subject in subjects]
    done = iter(found)
    return [(key, next(done) if isinstance(subject, Subject) else subject) for key, subject in batch]


def _alone(subject: Subject, predictor: MeshPredictor, root_depth: float | None) -> PicturePrediction | UserError:
    try:
        return predictor.predict([subject], root_depth)[0]
    except UserError as error:
        return error
