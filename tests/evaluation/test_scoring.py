"""Samples that are scored together get the same scores as one by one."""

from pathlib import Path

import pytest
import torch
from toy_benchmark import GRID, PROTOCOL, make_toy_benchmark

from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.evaluation.published_sets import PublishedSet
from i2l_meshnet.evaluation.scoring import Meshes, ScoreKeeper


@pytest.mark.parametrize("together", [1, 300, 10**9])
def test_scores_do_not_depend_on_how_many_are_scored_together(tmp_path: Path, together: int) -> None:
    toys = make_toy_benchmark(tmp_path, people=5, without_truth=(2,))
    scorer = PublishedSet(toys.source, PROTOCOL, toys.body, tmp_path).scored(GRID).scorer
    assert scorer is not None
    samples = PersonDataset(toys.source, crop_size=GRID.crop_size).batch(range(5))
    generator = torch.Generator().manual_seed(3)
    moved = toys.lixels + torch.randn(toys.lixels.shape, generator=generator)
    meshes, numbers = Meshes(moved, toys.vertices * 1.1), torch.arange(5)
    keeper = ScoreKeeper(scorer, together=together)
    for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
        keeper.add(meshes[part], samples[part], numbers[part])
    kept, wanted = keeper.scores(), scorer(meshes.map(scorer.reader.pick), samples, numbers, False)
    assert kept.keys() == {"lixel", "param"}
    for kind, scores in wanted.items():
        torch.testing.assert_close(kept[kind].metrics, scores.metrics, equal_nan=True, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(kept[kind].offsets, scores.offsets, equal_nan=True, atol=1e-6, rtol=1e-5)
        assert scores.metrics.isnan().all(1).tolist() == [False, False, True, False, False]
        assert float(scores.metrics[0, 0]) > 0.01
