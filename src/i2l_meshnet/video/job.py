"""The `predict` command for clips, alone or mixed with pictures: videos, tracks and animation out of each."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2l_meshnet.animation.bvh import write_bvh
from i2l_meshnet.animation.glb import write_glb
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.files import atomic_path
from i2l_meshnet.prediction.images import SUFFIXES, Picture, find_pictures
from i2l_meshnet.prediction.job import (
    PredictOptions,
    boxes_for,
    counted,
    load_predictor,
    predict_pictures,
    require_writable,
    result_names,
    say,
)
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import MeshFormat, SaveOptions, clear_the_way, versions
from i2l_meshnet.video.drawing import Artist, view_bounds
from i2l_meshnet.video.encode import VideoWriter, join
from i2l_meshnet.video.finish import finish, to_track
from i2l_meshnet.video.follow import make_tracker
from i2l_meshnet.video.smoothing import SmoothKind
from i2l_meshnet.video.source import TICKS, VIDEO_SUFFIXES, Clip, is_clip
from i2l_meshnet.video.track import PersonTrack
from i2l_meshnet.video.tracking import DETECT_EVERY
from i2l_meshnet.video.work import STRETCH, Person, Sighting, WorkFolder, gather

LEAST_SEEN = 5
"""Whoever is seen in fewer frames is taken for a mistake, unless the clip is as short."""
FORMAT_VERSION = 1
VIDEOS = ("overlay", "side_by_side")
_WRITERS = {"glb": write_glb, "bvh": write_bvh}


@dataclasses.dataclass(frozen=True)
class ClipOptions(PredictOptions):
    """Turn photos and videos of people into 3D meshes."""

    formats: tuple[MeshFormat | Literal["bvh"], ...] = ("obj", "ply", "glb")  # pyright: ignore[reportIncompatibleVariableOverride]
    """Mesh formats; rigged-glb has skeleton and skin weights; of a clip, glb is an animated body, bvh its skeleton."""
    webcam: int | None = None
    """Number of a camera to look through in place of files, 0 for the first; Ctrl-C ends it."""
    detect_every: int = DETECT_EVERY
    """Clips: frames from one run of the detector to the next; between them, people are where their meshes were."""
    smooth: SmoothKind = "one-euro"
    """Clips: how motion is made steady; offline looks ahead as well as back, and is the steadier for it."""
    save_vertices: bool = False
    """Clips: put the network's own mesh of every frame into the .npz files (7 KB a frame and person)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detect_every < 1:
            raise InputError(f"--detect-every is a number of frames, at least 1, not {self.detect_every}")
        if self.webcam is not None and (self.inputs or self.webcam < 0):
            raise InputError("--webcam takes the number of a camera, 0 or more, in place of files")
        if self.webcam is not None:
            self.require_people()

    def require_people(self) -> None:
        """Raises InputError for options that are for pictures only."""
        if self.hands or self.hand is not None:
            raise InputError("--hands and --hand are for pictures; leave them out for clips and cameras")

    @property
    def saving(self) -> SaveOptions:
        """What the options say about the files to write for a picture."""
        formats: list[MeshFormat] = [name for name in self.formats if name != "bvh"]
        return SaveOptions(tuple(formats), self.meshes, self.pictures, self.show, self.max_side, self.overwrite)


def run(options: ClipOptions) -> int:
    """Does the job for pictures and clips, and returns the exit code: 0, or 1 if one could not be read or written.

    Raises UserError for what concerns all of them.
    """
    found = find_pictures(options.inputs, options.recursive, options.out, (*SUFFIXES, *VIDEO_SUFFIXES))
    names = result_names(found)
    clips = {index for index, picture in enumerate(found) if is_clip(picture.path)}
    pictures = [index for index in range(len(found)) if index not in clips]
    code = 0
    if pictures:
        code = predict_pictures(options, [found[index] for index in pictures], [names[index] for index in pictures])
    if clips:
        chosen = sorted(clips)
        code |= _predict_clips(options, [found[index] for index in chosen], [names[index] for index in chosen])
    return code


def _predict_clips(options: ClipOptions, clips: Sequence[Picture], names: Sequence[Path]) -> int:
    console, code = Console(stderr=True, highlight=False), 0
    options.require_people()
    require_writable(options.out)
    boxes = None if options.boxes is None else boxes_for(options.boxes, clips)
    predictor = None
    for clip, name in zip(clips, names, strict=True):
        base = options.out / name
        record = base.with_name(base.name + ".json")
        if record.exists() and not options.overwrite:
            say(console, f"skipped {clip.path}: {record} is there already; --overwrite replaces it")
            continue
        try:
            source = Clip(clip.path)
            predictor = predictor or load_predictor(options, boxes, console)
            given = None if boxes is None else boxes.of(clip.path, clip.place)
            summary = ClipJob(source, base, predictor, options, given, console).run()
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
        options: ClipOptions,
        boxes: Sequence[Any] | None,
        console: Console,
        report: Callable[[str, int, int | None], None] = lambda doing, done, total: None,
    ) -> None:
        """base: path and beginning of the name of all results. boxes: of the first frame's people, or None.

        report: told after each frame what is being done, and how many frames of how many (None: unknown) are; what it
        raises ends the job.
        """
        self.report = report
        self.clip, self.base, self.predictor, self.options, self.console = clip, base, predictor, options, console
        self.camera, self.camera_source = options.camera.camera(clip.width, clip.height)
        self.boxes = boxes
        self.work = WorkFolder(base.with_name(base.name + ".unfinished"), self._facts())
        self._begun = time.perf_counter()

    def run(self) -> str:
        """Does it all and returns the summary, one line."""
        with self._progress() as progress:
            detections = self._follow(progress)
            ticks = np.concatenate([stretch.ticks for stretch in self.work.stretches()])
            people = gather(self.work, "people", min(LEAST_SEEN, len(ticks)))
            for person in people:
                finish(person, self.predictor.body, ticks, self.options.smooth)
            tracks = [
                to_track(person, self.predictor.body, self.camera, ticks, self.options.save_vertices)
                for person in people
            ]
            if self.options.pictures:
                self._draw(people, tracks, progress)
        self._write(tracks, ticks, detections)
        self.work.remove()
        return self._summary(tracks, len(ticks), detections)

    def _facts(self) -> dict[str, Any]:
        """All that the kept work depends on."""
        status = self.clip.path.stat()
        kept_anyway = ("inputs", "out", "overwrite", "recursive", "formats", "meshes", "save_vertices", "webcam")
        options = {name: value for name, value in vars(self.options).items() if name not in kept_anyway}
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
            self.predictor, self.camera, size, self.boxes, self.options.detect_every, root_depth=self.options.root_depth
        )
        index = done = 0
        for stretch in self.work.stretches():
            index, done = index + 1, done + len(stretch.ticks)
            tracker.restore(stretch.state)
        if done:
            say(self.console, f"going on with {self.clip.path} after {counted(done, 'frame')} that are kept")
        bar = progress.add_task(f"{self.clip.path.name}: following people", total=self.clip.frame_count, completed=done)
        ticks: list[int] = []
        sightings: list[Sighting] = []

        def keep() -> None:
            nonlocal index
            self.work.add(index, done - len(ticks), ticks, sightings, tracker.state())
            ticks.clear()
            sightings.clear()
            index += 1

        for frame in self.clip.frames(done):
            people = tracker.step(frame.pixels, frame.time)
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

    def _draw(self, people: Sequence[Person], tracks: Sequence[PersonTrack], progress: Progress) -> None:
        """Draws all stretches that are not drawn yet, and joins them."""
        artist = Artist(
            people,
            self.predictor.body,
            self.camera,
            self.options.show,
            self.options.max_side,
            view_bounds([track.joints[:, self.predictor.body.skeleton.root_index] for track in tracks]),
        )
        spans = [(stretch.first, stretch.ticks) for stretch in self.work.stretches()]
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

    def _write(self, tracks: Sequence[PersonTrack], ticks: Int64[np.ndarray, "f"], detections: int) -> None:
        """Writes the results; the .json file comes last: where it is, they are whole."""
        videos = {name: f"_{name}.mp4" for name in VIDEOS} if self.options.pictures else {}
        formats = [name for name in _WRITERS if name in self.options.formats]
        files = [
            {"arrays": {"npz": f"_person_{i:02d}.npz"}}
            | ({"animation": {name: f"_person_{i:02d}.{name}" for name in formats}} if track.params else {})
            for i, track in enumerate(tracks)
        ]
        endings = [ending for kinds in files for by_format in kinds.values() for ending in by_format.values()]
        clear_the_way(self.base, [*videos.values(), *endings], self.options.overwrite)
        for name, ending in videos.items():
            pieces = [
                (self.work.file(name, index, ".mp4"), int(stretch.ticks[0]))
                for index, stretch in enumerate(self.work.stretches())
            ]
            sound = self.clip.path if self.clip.has_audio else None
            with atomic_path(self._beside(ending)) as temporary:
                join(pieces, temporary, sound, self.clip.start)
        for track, kinds in zip(tracks, files, strict=True):
            track.save(self._beside(kinds["arrays"]["npz"]))
            for name, ending in kinds.get("animation", {}).items():
                write_animation(self._beside(ending), name, self.predictor.body, track)
        record = self._record(tracks, ticks, detections)
        record["files"] = {name: self.base.name + ending for name, ending in videos.items()}
        for person, kinds in zip(record["people"], files, strict=True):
            person["files"] = {
                kind: {name: self.base.name + ending for name, ending in by_format.items()}
                for kind, by_format in kinds.items()
            }
        with atomic_path(self._beside(".json")) as temporary:
            temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def _beside(self, ending: str) -> Path:
        return self.base.with_name(self.base.name + ending)

    def _record(self, tracks: Sequence[PersonTrack], ticks: Int64[np.ndarray, "f"], detections: int) -> dict[str, Any]:
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
            "detect_every": self.options.detect_every,
            "smooth": self.options.smooth,
            "network": self.predictor.network_facts,
            "body": {"name": body.name, "licence": body.licence},
            "versions": versions(),
            "people": [_person_record(number, track) for number, track in enumerate(tracks)],
        }

    def _summary(self, tracks: Sequence[PersonTrack], frames: int, detections: int) -> str:
        seconds = time.perf_counter() - self._begun
        bridged = sum(int(track.bridged.sum()) for track in tracks)
        parts = [
            f"{self.clip.path.name}: {counted(frames, 'frame')}, {counted(len(tracks), 'person', 'people')}, "
            f"{seconds:.1f} s",
            f"detector run {counted(detections, 'time')}",
        ]
        if bridged:
            parts.append(f"{counted(bridged, 'frame')} of a person bridged")
        if not tracks:
            parts.append("no person found")
        return "; ".join([*parts, f"results in {self.base.parent}"])


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
        "confidence": None if np.isnan(mean) else round(mean, 4),
        "shape": None if track.shape is None else [round(float(value), 6) for value in track.shape],
    }


def write_animation(path: Path, name: str, body: Body, track: PersonTrack) -> None:
    """Writes a track with body parameters as "glb", in the clip's time, or "bvh", whose time begins with the person."""
    if track.params is None:
        raise ValueError("a track without body parameters cannot be animated")
    _WRITERS[name](path, body, track.params, torch.from_numpy(track.time))
