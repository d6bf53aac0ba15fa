"""Interleaved timing of several variants of one task, and the rows of the benchmark's table."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

Unit = Literal["ms", "1/s", "MiB", "s"]


@dataclasses.dataclass(frozen=True)
class Timings:
    """Seconds of each variant in each round. The other variants are compared with the first."""

    seconds: Mapping[str, list[float]]

    def ratio(self, variant: str) -> float:
        """How many times as fast as the first variant: the median of the ratios within a round."""
        first = next(iter(self.seconds.values()))
        return statistics.median(a / b for a, b in zip(first, self.seconds[variant], strict=True))


def interleave(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], object] | None = None,
    budget: float = math.inf,
) -> Timings:
    """Run each variant once per round (A B A B ...), so that other load on the machine affects all alike.

    An extra first round warms up and is not counted. wait: returns when the device has finished. budget: after this
    many seconds no round starts, but one is always counted.
    """
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    started = time.perf_counter()
    for number in range(rounds + 1):
        if number > 1 and time.perf_counter() - started > budget:
            break
        for variant, work in variants.items():
            start = clock()
            work()
            if wait is not None:
                wait()
            if number:
                seconds[variant].append(clock() - start)
    return Timings(seconds)


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant of one task.

    what: the task, with its batch size. peer: the variant it is compared with, if any. value, low, high: median and
    range, in `unit`. times: how many times as fast as the peer (for memory: how many times as little). deviation: the
    largest distance of a vertex from the peer's, mm. note: why there is no value.
    """

    what: str
    variant: str
    value: float | None
    low: float | None
    high: float | None
    unit: Unit
    gflops: float | None = None
    peer: str | None = None
    times: float | None = None
    deviation: float | None = None
    note: str | None = None

    def cells(self) -> tuple[str, ...]:
        """The row's text for the columns `COLUMNS`."""
        return (
            self.what,
            self.variant,
            self.note or "-" if self.value is None else f"{_digits(self.value)} {self.unit}",
            "-" if self.low is None or self.high is None else f"{_digits(self.low)} to {_digits(self.high)}",
            "-" if self.gflops is None else _digits(self.gflops),
            "-" if self.times is None else f"{self.times:.2f} ({self.peer})",
            "-" if self.deviation is None else f"{self.deviation:.2g}",
        )


COLUMNS = ("what", "variant", "median", "range", "GFLOP/s", "times as good (as)", "largest deviation, mm")


def missing_row(what: str, variant: str, note: str) -> Row:
    """A row for a variant that cannot be measured. note: the reason, such as "not installed"."""
    return Row(what, variant, None, None, None, "ms", note=note)


def timed_rows(
    what: str,
    timings: Timings,
    count: int = 1,
    rate: bool = False,
    deviations: Mapping[str, float] | None = None,
    work: Mapping[str, float] | None = None,
) -> Iterator[Row]:
    """A row for each variant. count: items that a round processes.

    rate: report items per second instead of milliseconds per item. deviations: mm, by variant. work: GFLOP per item,
    by variant.
    """
    first = next(iter(timings.seconds))
    for variant, seconds in timings.seconds.items():
        middle = statistics.median(seconds)
        low, median, high = (1000 * value / count for value in (min(seconds), middle, max(seconds)))
        if rate:
            median, low, high = 1000 / median, 1000 / high, 1000 / low
        peer = None if variant == first else first
        yield Row(
            what,
            variant,
            median,
            low,
            high,
            "1/s" if rate else "ms",
            gflops=work[variant] * count / middle if work and variant in work else None,
            peer=peer,
            times=None if peer is None else timings.ratio(variant),
            deviation=(deviations or {}).get(variant),
        )


def markdown_table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
