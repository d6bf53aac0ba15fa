"""The published methods agree with ours, and rows say what was measured."""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

import machine
import measures
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.alignment import similarity_align
from measures import Bench
from peers import Missing
from published import align_plainly
from scoring import make_predictions, published_evaluate, scored
from subjects import random_body
from timing import COLUMNS, Timings, interleave, missing_row, timed_rows

BENCH = Bench(torch.device("cpu"), 1, 0.0, time.perf_counter, (1,))


def test_variants_are_interleaved_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []
    ticks: Iterator[float] = map(float, range(100))
    variants = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = interleave(variants, 2, lambda: next(ticks), wait=lambda: calls.append("."))
    assert "".join(calls) == "a.b." * 3
    assert timings.seconds == {"a": [1, 1], "b": [1, 1]}
    assert len(interleave(variants, 9, budget=0.0).seconds["a"]) == 1


def test_rows_are_per_item_and_compared_with_the_first_variant() -> None:
    timings = Timings({"slow": [4.0, 8.0], "fast": [1.0, 2.0]})
    slow, fast = timed_rows("x", timings, 2, deviations={"fast": 0.25}, work={"slow": 12.0, "fast": 3.0})
    assert (slow.value, slow.unit, slow.peer, slow.times, slow.gflops) == (3000, "ms", None, None, 4.0)
    assert (fast.value, fast.low, fast.high, fast.peer, fast.times) == (750, 500, 1000, "slow", 4.0)
    assert (fast.deviation, fast.gflops) == (0.25, 4.0)
    assert len(fast.cells()) == len(COLUMNS)
    (row,) = timed_rows("x", Timings({"only": [2.0, 4.0, 8.0]}), 8, rate=True)
    assert (row.value, row.low, row.high, row.unit) == (2, 1, 4, "1/s")
    assert missing_row("a", "b", "not installed").cells() == ("a", "b", "not installed", "-", "-", "-", "-")


def test_the_body_layer_agrees_with_the_reference_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object) -> None:
        raise Missing("not installed")

    monkeypatch.setattr(measures, "smplx_body", absent)
    monkeypatch.setattr(measures, "anny_body", absent)
    _, fast, smplx, own, anny = measures.body_layer(BENCH, batch=2)
    assert (smplx.variant, anny.variant, smplx.note, anny.note) == ("smplx", "anny", "not installed", "not installed")
    assert (own.variant, own.peer) == ("ours", None)
    assert fast.deviation is not None
    assert fast.deviation < 0.01


def test_alignment_agrees_with_numpy() -> None:
    source, target = np.random.default_rng(0).normal(size=(2, 9, 3))
    expected = align_plainly(source.copy(), target)
    found = similarity_align(torch.from_numpy(source), torch.from_numpy(target))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_scores_agree_with_the_published_method() -> None:
    predictions = make_predictions(6, 32)
    wanted, found = published_evaluate(predictions)(), scored(predictions, 4, "cpu", False)()
    assert wanted.shape == (6, 4)
    assert abs(wanted - found).max() < 0.01


def test_random_bodies_have_the_published_sizes() -> None:
    for hand, sizes in ((False, (29, 6890, 13776)), (True, (21, 778, 1538))):
        body = random_body(hand)
        assert (*body.joint_regressor.shape, len(body.faces)) == sizes
        assert bool(body(body.rest_params(2)).vertices.isfinite().all())


def test_memory_and_peak_of_the_machine() -> None:
    if not machine.Path("/proc/self/status").is_file():
        pytest.skip("Linux only")
    assert machine.memory("VmRSS") > 10
    with pytest.raises(InputError, match="Nothing"):
        machine.memory("Nothing")
    ticks = map(float, range(100))
    assert machine.matmul_peak(torch.device("cpu"), torch.float32, partial(next, ticks), 100) == pytest.approx(2e-3)
