"""Clips of any length: arrays on disk, and neither memory nor open files that grow with frames and people."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from filmed import CAMERA, Stage, Walker

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.video.finish import finish, to_track
from i2l_meshnet.video.followed import gather
from i2l_meshnet.video.source import TICKS
from i2l_meshnet.video.unfinished import Sighting, WorkFolder

CROWD = 120
FRAMES = 8


@pytest.fixture
def crowd(toy: Body, tmp_path: Path) -> WorkFolder:
    """A clip through which many people pass, all in two stretches."""
    stage = Stage(toy, [Walker(lambda t: (0.1 * t, 0, 6))])
    look = stage._look(PersonBox(stage.box(stage.meshes(0.0)[0])), 0.0)
    folder = WorkFolder(tmp_path / "clip.unfinished", {})
    with folder.opened():
        for index in range(2):
            frames = range(index * FRAMES, (index + 1) * FRAMES)
            seen = [
                Sighting(frame, who, dataclasses.replace(look, confidence=0.5 + who / 1000))
                for frame in frames
                for who in range(CROWD)
            ]
            folder.add(index, frames.start, [frame * 3000 for frame in frames], seen, {"after": index})
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files as Linux shows them")
def test_open_files_do_not_grow_with_people(crowd: WorkFolder, toy: Body) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    people = gather(crowd, toy, 5)
    assert len(people) == CROWD
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + len(people[0].columns) + 1
    ticks = np.concatenate([ticks for _, ticks in crowd.spans()])
    finish(people[7], toy, ticks, "one-euro")
    track = to_track(people[7], toy, CAMERA, ticks)
    assert float(track.confidence[0]) == pytest.approx(0.507)
    for array in (track.joints, track.pose, track.translation):
        assert isinstance(array, np.memmap)


def test_spans_and_state_are_read_without_the_rest(crowd: WorkFolder) -> None:
    assert [(first, len(ticks)) for first, ticks in crowd.spans()] == [(0, FRAMES), (FRAMES, FRAMES)]
    assert crowd.state() == {"after": 1}
    assert WorkFolder(crowd.path.with_name("empty"), {}).state() is None


def test_a_hand_out_of_sight_for_long_begins_anew(toy: Body, tmp_path: Path) -> None:
    stage = Stage(toy, [Walker(lambda t: (0.1 * t, 0, 6))])
    look = stage._look(PersonBox(stage.box(stage.meshes(0.0)[0])), 0.0)
    hand = dataclasses.replace(look, hands={"left": look})
    folder = WorkFolder(tmp_path / "clip.unfinished", {})
    there = [*range(6), 8, 9, *range(20, 26), 40]
    with folder.opened():
        seen = [Sighting(frame, 3, hand if frame in there else look) for frame in range(45)]
        folder.add(0, 0, [round(frame * 0.05 * TICKS) for frame in range(45)], seen, {})
        spells = gather(folder, toy, 5, "left", max_gap=0.2)
        assert [(spell.identity, spell.first, len(spell)) for spell in spells] == [(3, 0, 10), (3, 20, 6)]
        assert spells[0].seen.tolist() == [True] * 6 + [False, False, True, True]
        assert not gather(folder, toy, 1, "right")
