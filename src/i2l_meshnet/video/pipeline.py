"""From a clip to its results: follow people, finish their motion, draw videos, write files."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from i2l_meshnet import folders
from i2l_meshnet.animation import write_animation
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.console import counted
from i2l_meshnet.io import atomic_path
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.hands import SIDES, HandPredictor
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.result_files import versions, write_record
from i2l_meshnet.prediction.results import Side
from i2l_meshnet.prediction.staging import staged
from i2l_meshnet.video.drawing import Artist, view_bounds
from i2l_meshnet.video.encode import VideoWriter, join
from i2l_meshnet.video.finish import finish, finish_hands, to_track
from i2l_meshnet.video.followed import FollowedPerson, gather, spells_of
from i2l_meshnet.video.hands import HAND_GAP, make_hand_follower
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.source import TICKS, Clip, Frame
from i2l_meshnet.video.track import PersonTrack, rigged
from i2l_meshnet.video.tracking import Tracker
from i2l_meshnet.video.unfinished import STRETCH, Sighting, WorkFolder, unfinished

MIN_FRAMES = 5
"""People seen in fewer frames are removed as false detections, unless the clip is shorter."""
FORMAT_VERSION = 1
VIDEOS = ("overlay", "side_by_side")
ANIMATIONS = ("glb", "bvh", "usd")
"""Formats of `write_animation` that `predict` writes."""
Hands = Mapping[Side, tuple[Body, list[FollowedPerson]]]
"""For each side, the body of the hand and the spells in which hands were followed."""
Report = Callable[[str, int, int | None], None]
"""Called with the task, the number of finished frames, and the total (None: unknown)."""


class ClipJob:
    """The whole work on one clip.

    Finished work is kept in a folder beside the results until all results are written. A second run resumes from it and
    gives the same results.
    """

    def __init__(
        self,
        clip: Clip,
        base: Path,
        predictor: MeshPredictor,
        options: PredictOptions,
        clip_options: ClipOptions,
        boxes: Sequence[PersonBox] | None = None,
        report: Report = lambda task, done, total: None,
    ) -> None:
        """base: path and start of the name of all results. boxes: of the people in the first frame, or None.

        report: called at the start of each task and after each of its frames. An exception in it stops the job. Raises
        InputError for a box outside the frame.
        """
        self.clip, self.base, self.predictor, self._report = clip, base, predictor, report
        self.options, self.clip_options = options, clip_options
        self.camera, self.camera_source = options.camera.camera(clip.width, clip.height)
        self.tracker = Tracker(
            predictor,
            self.camera,
            (clip.width, clip.height),
            boxes,
            detect_every=clip_options.detect_every,
            root_depth=options.people.root_depth,
        )
        self._hand_follower = make_hand_follower(predictor)
        self.work = WorkFolder(unfinished(base), self._facts(boxes))
        self._start = time.perf_counter()

    def run(self) -> str:
        """Do all work and return a summary line. Raise TakenError if another process works on this clip."""
        with self.work.opened():
            self._follow()
            summary = self._write_results()
            folders.remove(self.work.path)
        return summary

    def _facts(self, boxes: Sequence[PersonBox] | None) -> dict[str, Any]:
        """Everything that the kept work depends on."""
        status = self.clip.path.stat()
        irrelevant = ("inputs", "overwrite", "recursive", "formats", "meshes", "save_vertices", "webcam", "code", "gpu")
        every = {**self.options.by_flag(), **vars(self.clip_options)}
        options = {name: value for name, value in every.items() if name not in irrelevant}
        return {
            "clip": [str(self.clip.path.resolve()), status.st_size, status.st_mtime_ns],
            "options": options,
            "boxes": None if boxes is None else [repr(box) for box in boxes],
            "network": self.predictor.network_facts,
            "version": version("i2l-meshnet"),
        }

    def _follow(self) -> None:
        """Follow people through all frames that are not kept yet, and keep a stretch at a time."""
        spans = self.work.spans()
        index, done = len(spans), sum(len(ticks) for _, ticks in spans)
        if state := self.work.state():
            self.tracker.restore(state["people"])
            if self._hand_follower is not None:
                self._hand_follower.restore(state["hands"])
        self._report("following people", done, self.clip.frame_count)
        ticks: list[int] = []
        sightings: list[Sighting] = []

        def keep() -> None:
            nonlocal index
            hands = None if self._hand_follower is None else self._hand_follower.state()
            state = {"people": self.tracker.state(), "hands": hands}
            self.work.add(index, done - len(ticks), ticks, sightings, state)
            ticks.clear()
            sightings.clear()
            index += 1

        for frame in self.clip.frames(done):
            people = self.tracker.step(frame.pixels, frame.time)
            if self._hand_follower is not None:
                people = self._hand_follower.step(frame.pixels, people, self.camera)
            sightings += [Sighting(frame.number, identity, person) for identity, person in people.items()]
            ticks.append(frame.ticks)
            done += 1
            self._report("following people", done, self.clip.frame_count)
            if len(ticks) == STRETCH:
                keep()
        if ticks:
            keep()

    def _write_results(self) -> str:
        """Finish, draw and write the followed people; return the summary."""
        ticks = np.concatenate([ticks for _, ticks in self.work.spans()])
        people, hands = self._finished(ticks)
        if self.options.output.pictures:
            self._draw(people, hands)
        with staged(self.base, self.options.output.overwrite) as written:
            found = self._write(written, people, hands, ticks)
        return self._summary(found, len(ticks))

    def _finished(self, ticks: Int64[np.ndarray, "f"]) -> tuple[list[FollowedPerson], Hands]:
        """All people and their hands, with smooth motion and one shape each."""
        min_frames, body, smooth = min(MIN_FRAMES, len(ticks)), self.predictor.body, self.clip_options.smooth
        people = gather(self.work, body, min_frames)
        for person in people:
            finish(person, body, ticks, smooth)
        hands: dict[Side, tuple[Body, list[FollowedPerson]]] = {}
        if isinstance(self.predictor.hands, HandPredictor):
            for side in SIDES:
                hand = self.predictor.hands.body_of(side)
                spells = gather(self.work, hand, min_frames, side, HAND_GAP)
                hands[side] = (hand, spells)
                for person in people:
                    finish_hands(spells_of(spells, person), hand, side, person, body, ticks, smooth)
        return people, hands

    def _draw(self, people: Sequence[FollowedPerson], hands: Hands) -> None:
        """Draw all stretches that are not drawn yet."""
        body, output = self.predictor.body, self.options.output
        bounds = view_bounds([person.columns["joints"][:, body.skeleton.root_index] for person in people])
        artist = Artist(people, hands, body, self.camera, output.drawn, output.max_side, bounds)
        spans = self.work.spans()
        total = sum(len(ticks) for _, ticks in spans)
        drawn = 0
        while drawn < len(spans) and all(path.exists() for path in self._pieces(drawn)):
            drawn += 1
        if drawn == len(spans):
            return
        self._report("drawing", spans[drawn][0], total)
        frames = self.clip.frames(spans[drawn][0])
        for index in range(drawn, len(spans)):
            self._draw_stretch(index, spans[index][1], frames, artist, total)

    def _draw_stretch(
        self, index: int, ticks: Int64[np.ndarray, "f"], frames: Iterator[Frame], artist: Artist, total: int
    ) -> None:
        with contextlib.ExitStack() as stack:
            paths = [stack.enter_context(atomic_path(path)) for path in self._pieces(index)]
            writers: list[VideoWriter] = []
            for _, frame in zip(ticks, frames, strict=False):
                drawn = artist.draw(frame.pixels, frame.number)
                if not writers:
                    writers = [
                        stack.enter_context(VideoWriter(path, pixels.shape[1], pixels.shape[0], self.clip.rate))
                        for path, pixels in zip(paths, drawn, strict=True)
                    ]
                for writer, pixels in zip(writers, drawn, strict=True):
                    writer.write(pixels, frame.ticks - int(ticks[0]))
                self._report("drawing", frame.number + 1, total)

    def _pieces(self, index: int) -> list[Path]:
        return [self.work.file(name, index, ".mp4") for name in VIDEOS]

    def _write(
        self, base: Path, people: Sequence[FollowedPerson], hands: Hands, ticks: Int64[np.ndarray, "f"]
    ) -> list[dict[str, Any]]:
        """Write all results; return the records of the people. base: start of their names."""
        videos = {name: f"_{name}.mp4" for name in VIDEOS} if self.options.output.pictures else {}
        starts = [int(first[0]) for _, first in self.work.spans()]
        for name, ending in videos.items():
            pieces = [(self.work.file(name, index, ".mp4"), start) for index, start in enumerate(starts)]
            with atomic_path(_beside(base, ending)) as temporary:
                join(pieces, temporary, self.clip.path if self.clip.has_audio else None, self.clip.start)
        # One person at a time, because their arrays may be long.
        found = [self._write_person(base, number, person, hands, ticks) for number, person in enumerate(people)]
        record = self._record(found, ticks)
        record["files"] = {name: self.base.name + ending for name, ending in videos.items()}
        write_record(base, record)
        return found

    def _write_person(
        self, base: Path, number: int, person: FollowedPerson, hands: Hands, ticks: Int64[np.ndarray, "f"]
    ) -> dict[str, Any]:
        """Write the track and the animation of a person; return their record."""
        body = self.predictor.body
        own: Hands = {side: (hand, spells_of(spells, person)) for side, (hand, spells) in hands.items()}
        track = to_track(person, body, self.camera, ticks, self.clip_options.save_vertices, own)
        name = f"_person_{number:02d}"
        endings = {"arrays": {"npz": f"{name}.npz"}}
        track.save(_beside(base, endings["arrays"]["npz"]))
        if track.params is not None:
            endings["animation"] = {
                form: f"{name}.{form}" for form in ANIMATIONS if form in self.options.output.formats
            }
            animated = rigged(body, track)
            for ending in endings["animation"].values():
                write_animation(_beside(base, ending), *animated, torch.from_numpy(track.time))
        files = {kind: {form: self.base.name + end for form, end in ends.items()} for kind, ends in endings.items()}
        return {**_person_record(number, track), "files": files}

    def _record(self, people: Sequence[dict[str, Any]], ticks: Int64[np.ndarray, "f"]) -> dict[str, Any]:
        """The content of the .json file (docs/outputs.md)."""
        body = self.predictor.body
        return {
            "format": "i2l-meshnet clip",
            "format_version": FORMAT_VERSION,
            "clip": {
                "file": self.clip.path.name,
                "width": self.clip.width,
                "height": self.clip.height,
                "frames": len(ticks),
                "rate": round(float(self.clip.rate), 6),
                "duration": round(float(ticks[-1]) / TICKS, 6),
                "sound": self.clip.has_audio,
            },
            "intrinsics": {
                "focal": self.camera.focal.tolist(),
                "center": self.camera.center.tolist(),
                "source": self.camera_source,
            },
            "detector_runs": self.tracker.detections,
            "detect_every": self.clip_options.detect_every,
            "smooth": self.clip_options.smooth,
            "network": self.predictor.network_facts,
            "body": {"name": body.name, "licence": body.licence},
            "versions": versions(),
            "people": people,
        }

    def _summary(self, people: Sequence[dict[str, Any]], frames: int) -> str:
        parts = [
            f"{self.clip.path.name}: {counted(frames, 'frame')}, {counted(len(people), 'person', 'people')}, "
            f"{time.perf_counter() - self._start:.1f} s",
            counted(self.tracker.detections, "run") + " of the detector",
        ]
        if bridged := sum(person["bridged_frames"] for person in people):
            parts.append(f"{counted(bridged, 'frame')} bridged")
        if hands := sum(len(person["hands"]) for person in people):
            parts.append(counted(hands, "hand"))
        if not people:
            parts.append("no person found")
        return "; ".join([*parts, f"results in {self.base.parent}"])


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _person_record(number: int, track: PersonTrack) -> dict[str, Any]:
    """The record of a person in the .json file, without the names of files."""
    mean = float(track.confidence[~track.bridged].mean())
    return {
        "number": number,
        "first_frame": int(track.frame[0]),
        "last_frame": int(track.frame[-1]),
        "start": round(float(track.time[0]), 6),
        "end": round(float(track.time[-1]), 6),
        "bridged_frames": int(track.bridged.sum()),
        "hands": {side: int(hand.present.sum()) for side, hand in track.hands.items()},
        "confidence": None if np.isnan(mean) else round(mean, 4),
        "shape": None if track.shape is None else [round(float(value), 6) for value in track.shape],
    }
