"""Print results on standard output, and messages and progress on standard error."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2l_meshnet.errors import printable

Item = TypeVar("Item")
LINE_INTERVAL = 60.0
"""Interval in seconds. Without a terminal, progress is printed as one line after each interval."""


def output(*items: RenderableType, style: str | None = None) -> None:
    """Print results on standard output: a string as one unwrapped line, or a rich table."""
    _print(Console(highlight=False), items, style)


def message(*items: RenderableType) -> None:
    """Print a message for the user on standard error, where scripts do not read it."""
    _print(Console(stderr=True, highlight=False), items)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: "1 person", "2 people"."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


class Bar:
    """Progress of one task; see `progress`."""

    def __init__(self, what: str, total: int | None, done: int, lines: bool) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        note = TextColumn("{task.fields[note]}", markup=False)
        self.shown = console.is_terminal
        """Whether a bar is drawn. It is drawn only in a terminal."""
        self._live = Progress(*columns, note, console=console, disable=not self.shown)
        self._task = self._live.add_task(printable(what), total=total, completed=done, note="")
        self._lines = lines and not self.shown
        self._what, self._total, self._done, self._first = what, total, done, done
        self._start = self._last = time.monotonic()

    def __enter__(self) -> "Bar":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def advance(self, count: int = 1) -> None:
        """Increase the number of completed steps."""
        self.update(done=self._done + count)

    def update(
        self,
        done: int | None = None,
        total: int | None = None,
        what: str | None = None,
        note: str | None = None,
    ) -> None:
        """Change the given values. note: a text shown after the bar."""
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        self._what = self._what if what is None else what
        self._live.update(self._task, completed=self._done, total=self._total, description=printable(self._what))
        if note is not None:
            self._live.update(self._task, note=note)
        if self._lines and time.monotonic() - self._last >= LINE_INTERVAL:
            self._last = time.monotonic()
            message(self._line())

    def _line(self) -> str:
        rate = (self._done - self._first) / (time.monotonic() - self._start)
        if self._total is None or rate <= 0:
            return f"{self._what}: {self._done:g}, {rate:.3g} a second"
        left = (self._total - self._done) / rate
        minutes = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f"{self._what}: {self._done:g} of {self._total:g}, {rate:.3g} a second, {minutes} left"


def progress(what: str, total: int | None = None, done: int = 0, lines: bool = True) -> Bar:
    """Show the progress of a task while the returned context is open: a bar in a terminal, otherwise a line per minute.

    what: the task, such as "evaluating". total: number of steps, None if unknown. done: steps that are already done.
    lines: whether to print the lines; False for callers that print their own.
    """
    return Bar(what, total, done, lines)


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Yield `items` and show the progress; see `progress`."""
    with progress(what, total) as bar:
        for item in items:
            yield item
            bar.advance()


def _print(console: Console, items: Iterable[RenderableType], style: str | None = None) -> None:
    for item in items:
        if isinstance(item, str):
            console.print(printable(item), style=style, markup=False, soft_wrap=True)
        else:
            console.print(item)
