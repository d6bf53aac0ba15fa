"""The oracles agree with what they are measured against, and rows say what was measured."""

import time
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
from rows import COLUMNS, Row, timed_rows
from subjects import made_up_body, person
from turns import Turns

BENCH = Bench(torch.device("cpu"), 1, 0.0, time.perf_counter, (1,))


def test_rows_are_of_one_thing_each() -> None:
    turns = Turns({"slow": [4.0, 8.0], "fast": [1.0, 2.0]})
    slow, fast = timed_rows("x", turns, 2, deviations={"fast": 0.25}, work={"slow": 12.0, "fast": 3.0})
    assert (slow.value, slow.unit, slow.peer, slow.times, slow.gflops) == (3000, "ms", None, None, 4.0)
    assert (fast.value, fast.low, fast.high, fast.peer, fast.times) == (750, 500, 1000, "slow", 4.0)
    assert (fast.deviation, fast.gflops) == (0.25, 4.0)
    assert len(fast.cells()) == len(COLUMNS)
    assert "4.00 (slow)" in fast.cells()


def test_rates_are_things_a_second() -> None:
    (row,) = timed_rows("x", Turns({"only": [2.0, 4.0, 8.0]}), 8, rate=True)
    assert (row.value, row.low, row.high, row.unit) == (2, 1, 4, "1/s")


def test_the_body_layer_does_what_the_reference_implementation_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object) -> None:
        raise Missing("not installed")

    monkeypatch.setattr(measures, "smplx_body", absent)
    monkeypatch.setattr(measures, "anny_body", absent)
    slow, fast, smplx, own, anny = measures.body_layer(BENCH, batch=2)
    assert (smplx.way, anny.way, smplx.note, anny.note) == ("smplx", "anny", "not installed", "not installed")
    assert (own.way, own.peer) == ("ours", None)
    assert slow.deviation is None
    assert fast.deviation is not None
    assert fast.deviation < 0.01


def test_alignment_does_what_numpy_does() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(2, 9, 3))
    expected = align_plainly(source.copy(), target)
    found = similarity_align(torch.from_numpy(source), torch.from_numpy(target))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_made_up_bodies_have_the_published_sizes() -> None:
    for hand, sizes in ((False, (29, 6890, 13776)), (True, (21, 778, 1538))):
        body = made_up_body(hand)
        assert (*body.joint_regressor.shape, len(body.faces)) == sizes
        mesh = body(body.rest_params(2))
        assert bool(mesh.vertices.isfinite().all())


def test_the_drawn_person_stands_in_the_middle() -> None:
    picture = person(128, 96).astype(int)
    grey = np.abs(picture - picture.mean(-1, keepdims=True)).max(-1) < 3
    rows = np.nonzero(grey.sum(1) >= 4)[0]
    columns = np.nonzero(grey)[1]
    assert 5 < rows.min() < 20
    assert 108 < rows.max() < 123
    assert abs(columns.mean() - 47.5) < 6


def test_the_machines_memory_is_read_and_a_missing_field_named() -> None:
    if not machine.Path("/proc/self/status").is_file():
        pytest.skip("Linux only")
    assert machine.memory("VmRSS", "/proc/self/status") > 10
    with pytest.raises(InputError, match="Nothing"):
        machine.memory("Nothing")


def test_the_matmul_peak_counts_both_operations_of_a_product() -> None:
    ticks = map(float, range(100))
    assert machine.matmul_peak(torch.device("cpu"), torch.float32, partial(next, ticks), 100) == pytest.approx(2e-3)


def test_a_row_without_a_peer_shows_dashes() -> None:
    assert Row("a", "b", 1234.0, 1.0, 2000.0, "MiB").cells() == ("a", "b", "1,234 MiB", "1 to 2,000", "-", "-", "-")
