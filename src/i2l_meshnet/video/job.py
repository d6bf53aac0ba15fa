"""The `predict` command for clips, alone or mixed with pictures: videos, tracks and animation out of each."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2l_meshnet.animation import require_usd
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.console import counted
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.io import atomic_path
from i2l_meshnet.prediction.hands import SIDES, HandPredictor
from i2l_meshnet.prediction.images import SUFFIXES, PictureFile, find_pictures
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predict_files import (
    boxes_for,
    load_predictor,
    predict_pictures,
    require_writable,
    result_names,
)
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.result_files import versions, write_record
from i2l_meshnet.prediction.results import Side
from i2l_meshnet.prediction.staging import discard, is_finished, record_of, staged
from i2l_meshnet.video.animate import WRITERS, write_animation
from i2l_meshnet.video.drawing import Artist, view_bounds
from i2l_meshnet.video.encode import VideoWriter, join
from i2l_meshnet.video.finish import finish, finish_hands, to_track
from i2l_meshnet.video.follow import make_tracker
from i2l_meshnet.video.hands import HAND_GAP, make_hand_follower
from i2l_meshnet.video.smoothing import SmoothKind
from i2l_meshnet.video.source import MAX_LENGTH, TICKS, VIDEO_SUFFIXES, Clip, is_clip
from i2l_meshnet.video.track import PersonTrack
from i2l_meshnet.video.tracking import DETECT_EVERY
from i2l_meshnet.video.work import STRETCH, Person, Sighting, WorkFolder, gather, of_person, work_of

LEAST_SEEN = 5
"""Whoever is seen in fewer frames is taken for a mistake, unless the clip is as short."""
FORMAT_VERSION = 1
VIDEOS = ("overlay", "side_by_side")
Hands = dict[Side, tuple[Body, list[Person]]]
"""Of each side the hand's body, and the spells in which hands were followed."""


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """Clips and cameras: how people are followed."""

    webcam: int | None = None
    """Number of a camera to read instead of files, 0 for the first; Ctrl-C stops it."""
    detect_every: int = DETECT_EVERY
    """Frames from one run of the detector to the next; in between, each person is searched where the mesh was."""
    max_clip_length: float = MAX_LENGTH
    """Refuse longer clips, seconds."""
    smooth: SmoothKind = "one-euro"
    """How motion is smoothed; offline also uses later frames and is smoother."""
    save_vertices: bool = False
    """Also write the network's own mesh of every frame into the .npz files (7 KB per frame and person)."""

    def __post_init__(self) -> None:
        if self.detect_every < 1:
            raise InputError(f"--detect-every is a number of frames, at least 1, not {self.detect_every}")
        if not self.max_clip_length > 0:
            raise InputError(f"--max-clip-length is a number of seconds, not {self.max_clip_length:g}")
        if self.webcam is not None and self.webcam < 0:
            raise InputError("--webcam is the number of a camera, 0 or more")


def run(options: PredictOptions, clip_options: ClipOptions) -> int:
    """Does the job for pictures and clips, and returns the exit code: 0, or 1 if one could not be read or written.

    Raises UserError for what concerns all of them.
    """
    if "usd" in options.output.formats:
        require_usd()
    inputs = options.input
    found = find_pictures(inputs.inputs, inputs.recursive, options.out, (*SUFFIXES, *VIDEO_SUFFIXES))
    names = result_names(found)
    clips = {index for index, picture in enumerate(found) if is_clip(picture.path)}
    pictures = [index for index in range(len(found)) if index not in clips]
    code = 0
    if pictures:
        code = predict_pictures(options, [found[index] for index in pictures], [names[index] for index in pictures])
    if clips:
        chosen = sorted(clips)
        chosen_names = [names[index] for index in chosen]
        code |= _predict_clips(options, clip_options, [found[index] for index in chosen], chosen_names)
    return code


def _predict_clips(
    options: PredictOptions, clip_options: ClipOptions, clips: Sequence[PictureFile], names: Sequence[Path]
) -> int:
    console, code = Console(stderr=True, highlight=False), 0
    if options.people.hand is not None:
        raise InputError("--hand is for pictures; leave it out for clips, or look at people and their --hands")
    require_writable(options.out)
    people = options.people
    boxes = None if people.boxes is None else boxes_for(people.boxes, clips, people.max_people)
    predictor = None
    for clip, name in zip(clips, names, strict=True):
        base = options.out / name
        if is_finished(base) and not options.output.overwrite:
            discard(work_of(base))
            say(console, f"skipped {clip.path}: {record_of(base)} is there already; --overwrite replaces it")
            continue
        try:
            source = Clip(clip.path, options.input.max_pixels, clip_options.max_clip_length)
            predictor = predictor or load_predictor(options, boxes)
            given = None if boxes is None else boxes.of(clip.path, clip.place)
            summary = ClipJob(source, base, predictor, options, clip_options, given, console).run()
        except UserError as error:
            code = 1
            shown = str(error) if str(clip.path) in str(error) else f"{clip.path}: {error}"
            say(console, f"failed: {shown}")
        else:
            Console(highlight=False).print(summary, markup=False, soft_wrap=True)
    return code


class ClipJob:
    """One clip: people found and followed, motion finished, videos drawn, files written.

    What is done is kept in a folder beside the results until all of it is; a second run goes on from there and comes
    to the same results.
    """

    def __init__(
        self,
        clip: Clip,
        base: Path,
        predictor: MeshPredictor,
        options: PredictOptions,
        clip_options: ClipOptions,
        boxes: Sequence[Any] | None,
        console: Console,
        report: Callable[[str, int, int | None], None] = lambda doing, done, total: None,
    ) -> None:
        """base: path and beginning of the name of all results. boxes: of the first frame's people, or None.

        report: told after each frame what is being done, and how many frames of how many (None: unknown) are; what it
        raises ends the job.
        """
        self.report = report
        self.clip, self.base, self.predictor, self.console = clip, base, predictor, console
        self.options, self.clip_options = options, clip_options
        self.camera, self.camera_source = options.camera.camera(clip.width, clip.height)
        self.boxes = boxes
        self.work = WorkFolder(work_of(base), self._facts())
        self._begun = time.perf_counter()

    def run(self) -> str:
        """Does it all and returns the summary, one line. Raises TakenError while another process is at this clip."""
        with self.work.opened(), self._progress() as progress:
            detections = self._follow(progress)
            ticks = np.concatenate([ticks for _, ticks in self.work.spans()])
            people, hands = self._finished(ticks)
            if self.options.output.pictures:
                self._draw(people, hands, progress)
            with staged(self.base, self.options.output.overwrite) as written:
                found = self._write(written, people, hands, ticks, detections)
            self.work.remove()
        return self._summary(found, len(ticks), detections)

    def _finished(self, ticks: Int64[np.ndarray, "f"]) -> tuple[list[Person], Hands]:
        """Everybody, and for each side the spells in which hands were followed, steady and with one shape each."""
        least, body, smooth = min(LEAST_SEEN, len(ticks)), self.predictor.body, self.clip_options.smooth
        people = gather(self.work, "people", least)
        for person in people:
            finish(person, body, ticks, smooth)
        hands: Hands = {}
        if isinstance(self.predictor.hands, HandPredictor):
            for side in SIDES:
                hand, spells = self.predictor.hands.body_of(side), gather(self.work, side, least, side, HAND_GAP)
                hands[side] = (hand, spells)
                for person in people:
                    finish_hands(of_person(spells, person), hand, side, person, body, ticks, smooth)
        return people, hands

    def _facts(self) -> dict[str, Any]:
        """All that the kept work depends on."""
        status = self.clip.path.stat()
        kept_anyway = ("inputs", "overwrite", "recursive", "formats", "meshes", "save_vertices", "webcam")
        every = {**self.options.by_flag(), **vars(self.clip_options)}
        options = {name: value for name, value in every.items() if name not in kept_anyway}
        return {
            "clip": [str(self.clip.path.resolve()), status.st_size, status.st_mtime_ns],
            "options": options,
            "boxes": self.boxes,
            "network": self.predictor.network_facts,
            "version": version("i2l-meshnet"),
        }

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def _follow(self, progress: Progress) -> int:
        """Looks at all frames that are not kept yet; returns how often the detector has run."""
        size = (self.clip.width, self.clip.height)
        tracker = make_tracker(
            self.predictor,
            self.camera,
            size,
            self.boxes,
            self.clip_options.detect_every,
            root_depth=self.options.people.root_depth,
        )
        hands = make_hand_follower(self.predictor)
        spans = self.work.spans()
        index, done = len(spans), sum(len(ticks) for _, ticks in spans)
        if state := self.work.state():
            tracker.restore(state["people"])
            if hands is not None:
                hands.restore(state["hands"])
        if done:
            say(self.console, f"going on with {self.clip.path} after {counted(done, 'frame')} that are kept")
        bar = progress.add_task(f"{self.clip.path.name}: following people", total=self.clip.frame_count, completed=done)
        ticks: list[int] = []
        sightings: list[Sighting] = []

        def keep() -> None:
            nonlocal index
            state = {"people": tracker.state(), "hands": None if hands is None else hands.state()}
            self.work.add(index, done - len(ticks), ticks, sightings, state)
            ticks.clear()
            sightings.clear()
            index += 1

        for frame in self.clip.frames(done):
            people = tracker.step(frame.pixels, frame.time)
            if hands is not None:
                people = hands.step(frame.pixels, people, self.camera)
            sightings += [Sighting(frame.number, who, person) for who, person in people.items()]
            ticks.append(frame.ticks)
            done += 1
            progress.advance(bar)
            self.report("following people", done, self.clip.frame_count)
            if len(ticks) == STRETCH:
                keep()
        if ticks:
            keep()
        progress.update(bar, total=done)
        if self.clip.frame_count is not None and done < 0.9 * self.clip.frame_count:
            say(
                self.console,
                f"warning: {self.clip.path} ends early: {done} of about {self.clip.frame_count} frames can be read",
            )
        return tracker.detections

    def _draw(self, people: Sequence[Person], hands: Hands, progress: Progress) -> None:
        """Draws all stretches that are not drawn yet, and joins them."""
        artist = Artist(
            people,
            hands,
            self.predictor.body,
            self.camera,
            self.options.output.shown,
            self.options.output.max_side,
            view_bounds([person.columns["joints"][:, self.predictor.body.skeleton.root_index] for person in people]),
        )
        spans = self.work.spans()
        total = sum(len(ticks) for _, ticks in spans)
        missing = [index for index in range(len(spans)) if not all(path.exists() for path in self._pieces(index))]
        bar = progress.add_task(f"{self.clip.path.name}: drawing", total=total)

        def advance(frame: int) -> None:
            progress.update(bar, completed=frame + 1)
            self.report("drawing", frame + 1, total)

        if missing:
            frames = self.clip.frames(spans[missing[0]][0])
            for index in range(missing[0], len(spans)):
                self._draw_stretch(index, spans[index][1], frames, artist, advance)
        progress.update(bar, completed=total)

    def _draw_stretch(
        self,
        index: int,
        ticks: Int64[np.ndarray, "f"],
        frames: Iterator[Any],
        artist: Artist,
        advance: Callable[[int], None],
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
                advance(frame.number)

    def _pieces(self, index: int) -> list[Path]:
        return [self.work.file(name, index, ".mp4") for name in VIDEOS]

    def _write(
        self, base: Path, people: Sequence[Person], hands: Hands, ticks: Int64[np.ndarray, "f"], detections: int
    ) -> list[dict[str, Any]]:
        """Writes the results, with names that begin with that of `base`; returns what is recorded of the people."""
        videos = {name: f"_{name}.mp4" for name in VIDEOS} if self.options.output.pictures else {}
        for name, ending in videos.items():
            pieces = [
                (self.work.file(name, index, ".mp4"), int(first[0]))
                for index, (_, first) in enumerate(self.work.spans())
            ]
            sound = self.clip.path if self.clip.has_audio else None
            with atomic_path(_beside(base, ending)) as temporary:
                join(pieces, temporary, sound, self.clip.start)
        formats = [name for name in WRITERS if name in self.options.output.formats]
        found = []
        for number, person in enumerate(people):
            # One at a time: a person's arrays may be long.
            theirs: Hands = {side: (hand, of_person(spells, person)) for side, (hand, spells) in hands.items()}
            body = self.predictor.body
            track = to_track(person, body, self.camera, ticks, self.clip_options.save_vertices, theirs)
            endings = {"arrays": {"npz": f"_person_{number:02d}.npz"}}
            if track.params:
                endings["animation"] = {name: f"_person_{number:02d}.{name}" for name in formats}
            track.save(_beside(base, endings["arrays"]["npz"]))
            for name, ending in endings.get("animation", {}).items():
                write_animation(_beside(base, ending), name, body, track)
            files = {kind: {name: self.base.name + end for name, end in ends.items()} for kind, ends in endings.items()}
            found.append({**_person_record(number, track), "files": files})
        record = self._record(found, ticks, detections)
        record["files"] = {name: self.base.name + ending for name, ending in videos.items()}
        write_record(base, record)
        return found

    def _record(
        self, people: Sequence[dict[str, Any]], ticks: Int64[np.ndarray, "f"], detections: int
    ) -> dict[str, Any]:
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
            "detector_runs": detections,
            "detect_every": self.clip_options.detect_every,
            "smooth": self.clip_options.smooth,
            "network": self.predictor.network_facts,
            "body": {"name": body.name, "licence": body.licence},
            "versions": versions(),
            "people": people,
        }

    def _summary(self, people: Sequence[dict[str, Any]], frames: int, detections: int) -> str:
        seconds = time.perf_counter() - self._begun
        bridged = sum(person["bridged_frames"] for person in people)
        parts = [
            f"{self.clip.path.name}: {counted(frames, 'frame')}, {counted(len(people), 'person', 'people')}, "
            f"{seconds:.1f} s",
            f"detector run {counted(detections, 'time')}",
        ]
        if bridged:
            parts.append(f"{counted(bridged, 'frame')} of a person bridged")
        if hands := sum(len(person["hands"]) for person in people):
            parts.append(counted(hands, "hand"))
        if not people:
            parts.append("no person found")
        return "; ".join([*parts, f"results in {self.base.parent}"])


def say(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, soft_wrap=True)


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _person_record(number: int, track: PersonTrack) -> dict[str, Any]:
    sure = track.confidence[~track.bridged]
    mean = float(sure.mean()) if len(sure) else float("nan")
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
