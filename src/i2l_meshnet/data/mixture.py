"""Several datasets as one. In the published mixture, half of each epoch is 3D and half 2D, for any sizes."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.skeletons import Skeleton


def union_skeleton(skeletons: Sequence[Skeleton]) -> Skeleton:
    """The joint set with every joint of `skeletons`, by name, and the root of the first one."""
    joints: dict[str, None] = {}
    bones: dict[tuple[str, str], None] = {}
    for skeleton in skeletons:
        joints |= dict.fromkeys(skeleton.joints)
        bones |= dict.fromkeys(skeleton.bones)
    name = "+".join(dict.fromkeys(skeleton.name for skeleton in skeletons))
    return Skeleton(name, tuple(joints), tuple(bones), skeletons[0].root)


class Mixture(Dataset[Sample]):
    """Groups of datasets. The datasets of a group are concatenated, and every group fills the same part of an epoch.

    The published mixture has two groups, the 3D and the 2D datasets. A shorter group is repeated as often as it fits
    into the length of the longest group, then filled up with random samples of itself. Positions continue from epoch
    to epoch, as in `PersonDataset`.
    """

    def __init__(self, groups: Sequence[Sequence[PersonDataset]], seed: int = 0) -> None:
        self._groups = [list(group) for group in groups if group]
        if not self._groups:
            raise ValueError("a mixture needs at least one dataset")
        self._ends = [np.cumsum([len(dataset) for dataset in group]) for group in self._groups]
        self._part = max(int(ends[-1]) for ends in self._ends)
        self._seed = seed

    @property
    def datasets(self) -> list[PersonDataset]:
        return [dataset for group in self._groups for dataset in group]

    def __len__(self) -> int:
        return self._part * len(self._groups)

    def locate(self, position: int) -> tuple[PersonDataset, int]:
        """The dataset of a position, and the position in that dataset."""
        epoch, index = divmod(position, len(self))
        group, index = divmod(index, self._part)
        ends = self._ends[group]
        length = int(ends[-1])
        if index < self._part // length * length:
            index %= length
        else:
            index = int(np.random.default_rng((self._seed, epoch, group, index)).integers(length))
        number = int(np.searchsorted(ends, index, side="right"))
        dataset = self._groups[group][number]
        start = int(ends[number - 1]) if number else 0
        return dataset, epoch * len(dataset) + index - start

    def __getitem__(self, position: int) -> Sample:
        dataset, own_position = self.locate(position)
        return dataset[own_position]

    def __getitems__(self, positions: Sequence[int]) -> Sample:
        """The samples at `positions` as one batch. Each dataset makes its part as a batch."""
        parts: dict[PersonDataset, list[tuple[int, int]]] = {}
        for row, position in enumerate(positions):
            dataset, own_position = self.locate(position)
            parts.setdefault(dataset, []).append((row, own_position))
        batch = Sample.concatenate([dataset.batch([own for _, own in part]) for dataset, part in parts.items()])
        order = torch.tensor([row for part in parts.values() for row, _ in part])
        return batch[order.argsort()]


class EpochSampler(Sampler[int]):
    """The positions of one epoch of a dataset, for one of `ranks` processes. The order depends on (seed, epoch).

    Some samples are repeated, so that all ranks have the same number. start: number of samples that this rank skips,
    to resume within an epoch.
    """

    def __init__(
        self, length: int, epoch: int = 0, seed: int = 0, rank: int = 0, ranks: int = 1, start: int = 0
    ) -> None:
        self._length, self._epoch, self._seed = length, epoch, seed
        self._rank, self._ranks, self._start = rank, ranks, start

    def __len__(self) -> int:
        return -(-self._length // self._ranks) - self._start

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._length)
        padded = np.resize(order, -(-self._length // self._ranks) * self._ranks)
        for index in padded[self._rank :: self._ranks][self._start :]:
            yield self._epoch * self._length + int(index)
