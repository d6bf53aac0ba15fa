"""Mixing datasets: half 2D, half 3D, in the published order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from i2l_meshnet.data.augmentation import RandomAugmentation
from i2l_meshnet.data.dataset import PersonDataset, collate
from i2l_meshnet.data.mixture import EpochSampler, Mixture, union_skeleton
from i2l_meshnet.data.sources import open_source
from i2l_meshnet.skeletons import COCO, HUMAN36M, MUCO


class Letters(PersonDataset):
    """A dataset with a length and no samples."""

    def __init__(self, letter: str, length: int) -> None:
        self.letter, self.length = letter, length

    def __len__(self) -> int:
        return self.length


def names(mixture: Mixture, epoch: int = 0) -> list[str]:
    result = []
    for index in range(len(mixture)):
        dataset, place = mixture.locate(epoch * len(mixture) + index)
        assert isinstance(dataset, Letters)
        assert place // len(dataset) == epoch
        result.append(f"{dataset.letter}{place % len(dataset)}")
    return result


def test_the_published_order(goldens: Path) -> None:
    a, b, c = Letters("a", 5), Letters("b", 3), Letters("c", 4)
    with np.load(goldens / "datasets" / "augment_and_mixing.npz") as archive:
        assert names(Mixture([[a, b]])) == archive["multi_notsame"].tolist()
        assert names(Mixture([[a, b], [c]])) == archive["multi_same_seed5"].tolist()


def test_a_short_group_is_repeated_then_filled_up() -> None:
    mixture = Mixture([[Letters("a", 7)], [Letters("b", 3)]], seed=2)
    first, second = names(mixture), names(mixture, epoch=1)
    assert first[7:13] == ["b0", "b1", "b2"] * 2
    assert second[:13] == first[:13]
    assert {names(mixture, epoch)[13] for epoch in range(20)} == {"b0", "b1", "b2"}
    with pytest.raises(ValueError, match="at least one"):
        Mixture([[], []])


def test_the_union_has_every_joint() -> None:
    union = union_skeleton([HUMAN36M, MUCO, COCO])
    assert set(union.joints) == set(HUMAN36M.joints) | set(MUCO.joints) | set(COCO.joints)
    assert union.root == "Pelvis"
    assert union_skeleton([COCO]).joints == COCO.joints


def test_a_real_mixture_gives_one_batch(dataset_root: Path) -> None:
    sources = [open_source(name, dataset_root, "train") for name in ("Human36M", "MuCo", "MSCOCO")]
    union = union_skeleton([source.table.skeleton for source in sources])
    datasets = [
        PersonDataset(source, union, draw=RandomAugmentation(number=i), number=i) for i, source in enumerate(sources)
    ]
    mixture = Mixture([datasets[:2], datasets[2:]])
    assert len(mixture) == 22
    assert mixture.datasets == datasets
    loader = DataLoader(mixture, batch_size=22, sampler=EpochSampler(len(mixture), seed=1), collate_fn=collate)
    (batch,) = loader
    order = list(EpochSampler(len(mixture), seed=1))
    assert batch.annotation.id.tolist() == [int(mixture[position].annotation.id) for position in order]
    annotation = batch.annotation
    assert annotation.visible.shape == (22, len(union))
    assert torch.bincount(annotation.source).tolist() == [6, 5, 11]
    torch.testing.assert_close(annotation.has_depth, annotation.source < 2)
    ankle = union.index("L_Ankle")
    rows = annotation.source == 0
    assert bool(annotation.visible[rows, ankle].all())
    assert not bool(annotation.visible[rows, union.index("L_Toe")].any())


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_an_epoch_and_resume_in_it(ranks: int) -> None:
    parts = [list(EpochSampler(10, epoch=2, seed=7, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert {position - 20 for part in parts for position in part} == set(range(10))
    assert len({len(part) for part in parts}) == 1
    assert len(parts[0]) == len(EpochSampler(10, rank=0, ranks=ranks))
    assert list(EpochSampler(10, epoch=2, seed=7, ranks=ranks, start=2)) == parts[0][2:]
    assert [p - 20 for p in parts[0]] != [p - 30 for p in EpochSampler(10, epoch=3, seed=7, ranks=ranks)]
