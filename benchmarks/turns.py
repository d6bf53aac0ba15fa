"""Several ways of doing one thing, timed by turns, so that whatever else the machine does meets them alike."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Turns:
    """Seconds that each way took at each turn (A B A B ...). The first way is what the others are compared with."""

    seconds: Mapping[str, list[float]]

    def median(self, way: str) -> float:
        """Seconds."""
        return statistics.median(self.seconds[way])

    def spread(self, way: str) -> tuple[float, float]:
        """The least and the most, seconds."""
        return min(self.seconds[way]), max(self.seconds[way])

    def ratio(self, way: str) -> float:
        """How many times as fast as the first: the median of the quotients of the two times of one turn."""
        first = next(iter(self.seconds.values()))
        return statistics.median(a / b for a, b in zip(first, self.seconds[way], strict=True))


def take_turns(
    ways: Mapping[str, Callable[[], object]],
    turns: int,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], object] | None = None,
    budget: float = math.inf,
) -> Turns:
    """Times each way `turns` times, in turn, after one turn that is not counted.

    wait: returns when the device has done what was asked of it. budget: no turn begins after so many seconds of wall
    time, but for the first that counts.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    begun = time.perf_counter()
    for turn in range(turns + 1):
        if turn > 1 and time.perf_counter() - begun > budget:
            break
        for way, work in ways.items():
            start = clock()
            work()
            if wait is not None:
                wait()
            if turn:
                seconds[way].append(clock() - start)
    return Turns(seconds)
