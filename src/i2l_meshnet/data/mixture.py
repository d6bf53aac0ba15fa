"""Several data sets as one: half of each epoch 3D, half 2D, whatever their sizes."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from i2l_meshnet.data.dataset import PersonDataset, Sample
from i2l_meshnet.skeletons import Skeleton


def union_skeleton(skeletons: Sequence[Skeleton]) -> Skeleton:
    """The joint set that holds every joint of `skeletons`, by name; the first one's root."""
    joints: dict[str, None] = {}
    bones: dict[tuple[str, str], None] = {}
    for skeleton in skeletons:
        joints |= dict.fromkeys(skeleton.joints)
        bones |= dict.fromkeys(skeleton.bones)
    name = "+".join(dict.fromkeys(skeleton.name for skeleton in skeletons))
    return Skeleton(name, tuple(joints), tuple(bones), skeletons[0].root)


class Mixture(Dataset[Sample]):
    """Groups of data sets. Those of a group are joined end to end; every group fills the same part of an epoch.

    The published mixing is two groups, the 3D sets and the 2D sets. A group that is shorter than the longest is
    repeated whole as often as it fits, then filled up with random samples of itself. Positions count on from
    epoch to epoch, as in `PersonDataset`.
    """

    def __init__(self, groups: Sequence[Sequence[PersonDataset]], seed: int = 0) -> None:
        self._groups = [list(group) for group in groups if group]
        if not self._groups:
            raise ValueError("a mixture needs at least one data set")
        self._ends = [np.cumsum([len(dataset) for dataset in group]) for group in self._groups]
        self._part = max(int(ends[-1]) for ends in self._ends)
        self._seed = seed

    @property
    def datasets(self) -> list[PersonDataset]:
        return [dataset for group in self._groups for dataset in group]

    def __len__(self) -> int:
        return self._part * len(self._groups)

    def locate(self, position: int) -> tuple[PersonDataset, int]:
        """The data set that a position falls on, and the position within it."""
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
        dataset, place = self.locate(position)
        return dataset[place]

    def __getitems__(self, positions: Sequence[int]) -> Sample:
        """The samples at `positions` as one batch, which each data set makes its part of."""
        rows: dict[PersonDataset, list[int]] = {}
        places: dict[PersonDataset, list[int]] = {}
        for row, position in enumerate(positions):
            dataset, place = self.locate(position)
            rows.setdefault(dataset, []).append(row)
            places.setdefault(dataset, []).append(place)
        batch = Sample.concatenate([dataset.batch(chosen) for dataset, chosen in places.items()])
        order = torch.tensor([row for chosen in rows.values() for row in chosen])
        return batch[order.argsort()]


class EpochSampler(Sampler[int]):
    """Positions of one epoch of a data set of `length`, shuffled by (seed, epoch), for one of `ranks` processes.

    The last samples are repeated so that all ranks get equally many. `start` skips what this rank has already
    seen, so a run resumes within an epoch.
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
