"""Timing by turns: the order, what counts, and what the ratios are."""

from collections.abc import Iterator

import pytest

from turns import Turns, take_turns


def test_ways_take_turns_and_the_first_turn_does_not_count() -> None:
    calls: list[str] = []
    ticks: Iterator[float] = map(float, range(100))
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = take_turns(ways, 2, lambda: next(ticks), wait=lambda: calls.append("."))
    assert "".join(calls) == "a.b." * 3
    assert times.seconds == {"a": [1, 1], "b": [1, 1]}


def test_a_spent_budget_leaves_one_turn() -> None:
    calls: list[str] = []
    times = take_turns({"a": lambda: calls.append("a")}, 9, budget=0.0)
    assert len(times.seconds["a"]) == 1
    assert len(calls) == 2


def test_ratios_are_of_the_times_within_a_turn() -> None:
    times = Turns({"a": [4.0, 40.0, 6.0], "b": [2.0, 10.0, 2.0]})
    assert times.ratio("b") == 3.0
    assert times.ratio("a") == 1.0
    assert times.median("a") == 6.0
    assert times.spread("b") == (2.0, 10.0)


def test_a_quicker_first_way_gives_a_ratio_below_one() -> None:
    assert Turns({"a": [1.0], "b": [4.0]}).ratio("b") == pytest.approx(0.25)
