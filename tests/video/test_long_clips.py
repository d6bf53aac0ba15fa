"""Clips of any length: arrays on disk, and a number of open files that does not grow with the number of people."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from filmed import CAMERA, Stage, Walker

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.video.finish import finish, to_track
from i2l_meshnet.video.followed import gather
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.video.unfinished import Sighting, WorkFolder

CROWD = 120
FRAMES = 8


@pytest.fixture
def look(toy: Body) -> Prediction:
    """A person in one frame."""
    stage = Stage(toy, [Walker(lambda t: (0.1 * t, 0, 6))])
    return stage.look(PersonBox(stage.box(stage.meshes(0.0)[0])), 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "clip.unfinished", {})


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_open_files_do_not_grow_with_the_number_of_people(look: Prediction, folder: WorkFolder, toy: Body) -> None:
    assert folder.state() is None
    crowd = [dataclasses.replace(look, confidence=0.5 + number / 1000) for number in range(CROWD)]
    with folder.opened():
        for index in range(2):
            frames = range(index * FRAMES, (index + 1) * FRAMES)
            seen = [Sighting(frame, number, person) for frame in frames for number, person in enumerate(crowd)]
            folder.add(index, frames.start, [frame * 3000 for frame in frames], seen, {"after": index})
    assert [(first, len(ticks)) for first, ticks in folder.spans()] == [(0, FRAMES), (FRAMES, FRAMES)]
    assert folder.state() == {"after": 1}
    before = len(list(Path("/proc/self/fd").iterdir()))
    people = gather(folder, toy, 5)
    assert len(people) == CROWD
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + len(people[0].columns) + 1
    ticks = np.concatenate([ticks for _, ticks in folder.spans()])
    finish(people[7], toy, ticks, "one-euro")
    track = to_track(people[7], toy, CAMERA, ticks)
    assert float(track.confidence[0]) == pytest.approx(0.507)
    for array in (track.joints, track.pose, track.translation):
        assert isinstance(array, np.memmap)


def test_a_hand_that_is_hidden_for_long_starts_anew(look: Prediction, folder: WorkFolder, toy: Body) -> None:
    hand = dataclasses.replace(look, hands={"left": look})
    visible = [*range(6), 8, 9, *range(20, 26), 40]
    with folder.opened():
        seen = [Sighting(frame, 3, hand if frame in visible else look) for frame in range(45)]
        folder.add(0, 0, [round(frame * 0.05 * TICKS) for frame in range(45)], seen, {})
        spells = gather(folder, toy, 5, "left", max_gap=0.2)
        assert [(spell.identity, spell.first, len(spell)) for spell in spells] == [(3, 0, 10), (3, 20, 6)]
        assert spells[0].seen.tolist() == [True] * 6 + [False, False, True, True]
        assert not gather(folder, toy, 1, "right")
