import json

import pytest
from filmed import CAMERA, RATE, SIZE, Stage, Walker, frame_pixels

from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.prediction.results import Prediction
from i2l_meshnet.video.tracking import Tracker


def standing(x: float, z: float = 6.0) -> Walker:
    return Walker(lambda time: (x, 0.0, z))


def follow(tracker: Tracker, start: int, end: int) -> list[dict[int, Prediction]]:
    return [tracker.step(frame_pixels(number), number / RATE) for number in range(start, end)]


def numbers(body: Body, walker: Walker, frames: int) -> list[list[int]]:
    """Who is seen in each frame of a clip of one person."""
    return [sorted(people) for people in follow(Tracker(Stage(body, [walker]), CAMERA, SIZE), 0, frames)]


def depths(seen: dict[int, Prediction]) -> dict[int, float]:
    return {number: round(person.root_depth, 1) for number, person in seen.items()}


def test_people_who_cross_keep_their_numbers(toy: Body) -> None:
    stage = Stage(toy, [Walker(lambda t: (-1.8 + 1.2 * t, 0, 5)), Walker(lambda t: (2.0 - 1.2 * t, 0, 6.5))])
    seen = follow(Tracker(stage, CAMERA, SIZE, detect_every=5), 0, 60)
    assert len(seen[0]) == 2
    assert depths(seen[-1]) == depths(seen[0])
    assert any(len(people) == 1 for people in seen), "the person behind was never hidden"
    assert set().union(*seen) == {0, 1}


def test_a_short_gap_keeps_the_number_and_a_long_one_does_not(toy: Body) -> None:
    short = numbers(toy, Walker(lambda t: (-1 + t, 0, 6), seen=lambda t: not 0.5 < t < 1.3), 40)
    # The person returns in frame 26 and is found in the next run of the detector.
    assert short[:26] == [[0]] * 11 + [[]] * 15
    assert short[28:] == [[0]] * 12
    assert numbers(toy, Walker(lambda t: (0, 0, 6), seen=lambda t: not 0.5 < t < 1.9), 50)[-1] == [1]


@pytest.mark.parametrize(("metres", "number"), [(0.8, 0), (2.2, 1)])
def test_the_longer_somebody_is_unseen_the_farther_they_may_be(toy: Body, metres: float, number: int) -> None:
    walker = Walker(lambda t: (metres - 1 if t > 0.5 else -1, 0, 6), seen=lambda t: not 0.5 < t < 1.3)
    assert numbers(toy, walker, 32)[-1] == [number]


def test_somebody_who_stops_out_of_sight_is_not_expected_far_ahead(toy: Body) -> None:
    walker = Walker(lambda t: (2 * min(t, 0.5) - 1.5, 0, 6), seen=lambda t: not 0.5 < t < 1.3)
    assert numbers(toy, walker, 32)[-1] == [0]


def test_frames_that_are_seconds_apart_keep_the_number(toy: Body) -> None:
    tracker = Tracker(Stage(toy, [standing(-1), standing(1)]), CAMERA, SIZE, detect_every=10)
    for number in range(12):
        assert sorted(tracker.step(frame_pixels(number), 3.0 * number)) == [0, 1]


def test_the_detector_runs_every_n_frames_and_more_often_while_a_person_is_lost(toy: Body) -> None:
    stage = Stage(toy, [standing(-1), standing(1)])
    tracker = Tracker(stage, CAMERA, SIZE, detect_every=10)
    follow(tracker, 0, 21)
    assert stage.detections == [0, 0.5, 1]
    assert tracker.detections == 3
    lost = Stage(toy, [standing(-1), Walker(lambda t: (1, 0, 6), seen=lambda t: t < 0.1)])
    follow(Tracker(lost, CAMERA, SIZE, detect_every=10), 0, 20)
    assert len(lost.detections) >= 5


def test_a_new_person_is_found_in_the_next_run_of_the_detector(toy: Body) -> None:
    stage = Stage(toy, [standing(-1), Walker(lambda t: (1, 0, 6), seen=lambda t: t > 0.3)])
    seen = follow(Tracker(stage, CAMERA, SIZE, detect_every=8), 0, 9)
    assert sorted(seen[7]) == [0]
    assert sorted(seen[8]) == [0, 1]


def test_two_boxes_of_one_person_give_one_person(toy: Body) -> None:
    stage = Stage(toy, [standing(0)])
    box = stage.box(stage.meshes(0)[0])
    wide = (box[0] - 40, box[1] - 20, box[2] + 80, box[3] + 40)
    seen = follow(Tracker(stage, CAMERA, SIZE, boxes=[box, wide]), 0, 3)
    assert [sorted(people) for people in seen] == [[0]] * 3


def test_whom_the_detector_never_finds_again_is_given_up(toy: Body) -> None:
    stage = Stage(toy, [Walker(lambda t: (0, 0, 6), detected=lambda t: t < 0.1)])
    seen = follow(Tracker(stage, CAMERA, SIZE, detect_every=4), 0, 60)
    assert sorted(seen[10]) == [0]
    assert not seen[-1]


@pytest.mark.parametrize(("jump", "replaced"), [(0.45, True), (0.15, False)])
def test_a_detection_replaces_a_box_that_has_drifted_away(toy: Body, jump: float, replaced: bool) -> None:
    """Just before the detector runs, a person jumps aside by a share of the width of their box."""
    still = Stage(toy, [standing(0)])
    x, _, width, _ = still.box(still.meshes(0)[0])
    metres = jump * width / float(CAMERA.focal[0]) * 6
    stage = Stage(toy, [Walker(lambda time: (metres if time > 0.45 else 0.0, 0, 6))])
    seen = follow(Tracker(stage, CAMERA, SIZE, detect_every=10), 0, 11)
    assert stage.detections == [0, 0.5]
    assert float(seen[10][0].box[0]) == pytest.approx(x + jump * width if replaced else x, abs=1.5)


def test_without_a_detector_the_first_box_is_the_whole_frame(toy: Body) -> None:
    stage = Stage(toy, [standing(0.2)])
    stage.detector = None
    seen = follow(Tracker(stage, CAMERA, SIZE), 0, 5)
    assert seen[0][0].box.tolist() == [0, 0, 320, 240]
    assert seen[4][0].box[2] < 200


def test_a_person_who_leaves_the_frame_is_not_searched_outside(toy: Body) -> None:
    stage = Stage(toy, [Walker(lambda t: (5 * t, 0, 6), seen=lambda t: 5 * t < 3)])
    seen = follow(Tracker(stage, CAMERA, SIZE), 0, 30)
    assert sorted(seen[5]) == [0]
    assert not seen[-1]
    assert stage.looks[-1] == 0


@pytest.mark.parametrize(("x", "looks"), [(290.0, 1), (305.0, 0)])
def test_a_box_that_is_hardly_in_the_picture_is_not_looked_into(toy: Body, x: float, looks: int) -> None:
    stage = Stage(toy, [standing(0)])
    follow(Tracker(stage, CAMERA, SIZE, boxes=[(x, 50.0, 100.0, 100.0)]), 0, 1)
    assert stage.looks == [looks]


def test_a_tracker_continues_from_its_state(toy: Body) -> None:
    def tracker() -> Tracker:
        walkers = [Walker(lambda t: (-1 + t, 0, 5)), Walker(lambda t: (1 - t, 0, 6.5))]
        return Tracker(Stage(toy, walkers, noise=0.01), CAMERA, SIZE, detect_every=4)

    whole = follow(tracker(), 0, 24)
    first, second = tracker(), tracker()
    follow(first, 0, 10)
    second.restore(json.loads(json.dumps(first.state())))
    boxes = [
        [{number: person.box.tolist() for number, person in people.items()} for people in seen]
        for seen in (whole[10:], follow(second, 10, 24))
    ]
    assert boxes[0] == boxes[1]


def test_invalid_values(toy: Body) -> None:
    stage = Stage(toy, [standing(0)])
    for wrong in ({"detect_every": 0}, {"max_gap": 0.0}, {"boxes": [(900.0, 10.0, 20.0, 20.0)]}):
        with pytest.raises(InputError):
            Tracker(stage, CAMERA, SIZE, **wrong)
