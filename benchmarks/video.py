"""Video on real people: smoothing against a triangulated reference, and what the detector costs.

    python benchmarks/video.py --work WORK

follows the people of the four-view clips in every frame of every view, with the command's settings, and scores their
motion unsmoothed, with the One-Euro filter and with the offline fit: MPJPE, PA-MPJPE and the error of the acceleration
(second differences) of 12 joints relative to the mean of the hips, averaged over all frames that have a reference.
What was followed is kept in WORK, so that a second run only smooths and scores.
"""

import dataclasses
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, Integer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from i2l_meshnet import MeshPredictor, assets
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.data.multiview import HIPS, KEYPOINT_ROWS, MultiviewClip, MultiviewSamples, open_clip
from i2l_meshnet.evaluation.benchmark import keypoint_regressor
from i2l_meshnet.evaluation.multiview import person_errors
from i2l_meshnet.evaluation.real_multiview import clip_samples
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.io import atomic_path
from i2l_meshnet.video.finish import finish
from i2l_meshnet.video.followed import FollowedPerson, gather
from i2l_meshnet.video.smoothing import SmoothKind
from i2l_meshnet.video.source import Clip
from i2l_meshnet.video.tracking import DETECT_EVERY, Tracker
from i2l_meshnet.video.unfinished import STRETCH, Sighting, WorkFolder

KINDS: tuple[SmoothKind, ...] = ("off", "one-euro", "offline")
RECORDED_RATE = 60
"""Frames a second of the clips."""
NEAR = 0.25
"""Mean distance of the scored joints in the picture, in heights of the box, up to which a track is a person's."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Scores of smoothing, and the detector's cost."""

    work: Path
    """Folder for what is kept between runs, and for the results (video.json)."""
    detect_every: tuple[int, ...] = (DETECT_EVERY,)
    """Frames from one run of the detector to the next; the time of each choice is measured."""
    views: tuple[int, ...] = (0, 1, 2, 3)
    """Which of the four views."""
    clips: tuple[str, ...] = ("Demo_SinglePerson", "Demo_MultiPerson")
    """Which clips."""
    rates: tuple[int, ...] = (60,)
    """Frames a second at which motion is smoothed and scored: of the 60, those nearest in time are taken."""


def main(options: Options) -> None:
    """Follows, smooths, scores and prints."""
    torch.set_num_threads(1)
    predictor = MeshPredictor.load(device="cpu")
    found = []
    for path in sorted(assets.ensure("multiview").glob("**/Demo_*"), reverse=True):
        if not (path / "videos").is_dir() or path.name not in options.clips:
            continue
        clip = open_clip(path)
        samples = clip_samples(clip, 1)
        for every in options.detect_every:
            folders = [_followed(predictor, clip, samples, view, every, options.work) for view in options.views]
            seconds = [json.loads((folder.path / "clock.json").read_text()) for folder in folders]
            row = {name: sum(part[name] for part in seconds) for name in seconds[0]}
            print(f"{clip.name}, detector every {every}: {row}")
            for rate, kind in itertools.product(options.rates, KINDS):
                scores = _scores(predictor.body, samples, folders, options.views, kind, rate)
                found.append({"clip": clip.name, "detect_every": every, "rate": rate, "smooth": kind, **row, **scores})
    with atomic_path(options.work / "video.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    Console(width=160).print(_table(found))


def _followed(
    predictor: MeshPredictor, clip: MultiviewClip, samples: MultiviewSamples, view: int, every: int, work: Path
) -> WorkFolder:
    """The people of one view, followed through all frames; kept."""
    folder = WorkFolder(work / f"{clip.name}_{view}_{every}", {"every": every})
    with folder.opened():
        if not (folder.path / "clock.json").exists():
            _follow(predictor, clip, samples, view, every, folder)
    return folder


def _follow(
    predictor: MeshPredictor, clip: MultiviewClip, samples: MultiviewSamples, view: int, every: int, folder: WorkFolder
) -> None:
    video = Clip(clip.videos[view])
    tracker = Tracker(predictor, _camera(samples, view), (video.width, video.height), detect_every=every)
    ticks, sightings, index, frames = [], [], 0, 0
    start = time.process_time()
    for frame in video.frames():
        people = tracker.step(frame.pixels, frame.time)
        sightings += [Sighting(frame.number, who, person) for who, person in people.items()]
        ticks.append(frame.ticks)
        frames += 1
        if len(ticks) == STRETCH:
            folder.add(index, frames - len(ticks), ticks, sightings, {})
            ticks, sightings, index = [], [], index + 1
    clock = {"seconds": time.process_time() - start, "frames": frames, "detector_runs": tracker.detections}
    if ticks:
        folder.add(index, frames - len(ticks), ticks, sightings, {})
    with atomic_path(folder.path / "clock.json") as temporary:
        temporary.write_text(json.dumps(clock))


def _camera(samples: MultiviewSamples, view: int) -> Camera:
    return samples[samples.view == view].camera[0]


def _scores(
    body: Body,
    samples: MultiviewSamples,
    folders: list[WorkFolder],
    views: tuple[int, ...],
    kind: SmoothKind,
    rate: int,
) -> dict[str, float | int | None]:
    """Means over all views and people."""
    parts, lixel, param, tracks, reference = [], [], [], 0, 0
    for view, folder in zip(views, folders, strict=True):
        ticks = np.concatenate([ticks for _, ticks in folder.spans()])
        kept = np.unique(np.round(np.arange(0, len(ticks) - 0.5, RECORDED_RATE / rate)).astype(int))
        seen = samples[(samples.view == view) & torch.isin(samples.frame, torch.from_numpy(kept))]
        seen = dataclasses.replace(seen, frame=torch.searchsorted(torch.from_numpy(kept), seen.frame))
        reference += len(seen.frame)
        for whole in gather(folder, body, 5):
            person = _thinned(whole, kept)
            finish(person, body, ticks[kept], kind)
            of_lixel, of_param, chosen = _matched(person, body, seen)
            if len(chosen.frame):
                tracks += 1
                parts.append(chosen)
                lixel.append(of_lixel)
                param.append(of_param)
    chosen = MultiviewSamples.concatenate(parts)
    result: dict[str, float | int | None] = {"samples": len(chosen.frame), "tracks": tracks}
    result["people"] = len(set(zip(samples.view.tolist(), samples.person.tolist(), strict=True)))
    result["reference"] = reference
    for name, joints in (("lixel", torch.cat(lixel)), ("param", torch.cat(param)), ("noise", chosen.joints_without)):
        summary = person_errors(chosen, joints).summary()
        wanted = ("mpjpe_mm", "pa_mpjpe_mm", "acceleration_mm_per_squared_frame")
        result |= {f"{name}_{key}": summary[key] for key in wanted}
    return result


def _thinned(person: FollowedPerson, kept: Integer[np.ndarray, "n"]) -> FollowedPerson:
    """The person in some frames of the clip, as a clip of these frames would have them."""
    rows = kept[(kept >= person.first) & (kept < person.first + len(person))] - person.first
    # As in a clip of its own, a person begins and ends where they are seen.
    there = np.flatnonzero(person.seen[rows])
    rows = rows[there[0] : there[-1] + 1]
    first = int(np.searchsorted(kept, person.first + rows[0]))
    columns = {name: column[rows] for name, column in person.columns.items()}
    return FollowedPerson(person.identity, first, person.seen[rows], columns)


def _matched(
    person: FollowedPerson, body: Body, samples: MultiviewSamples
) -> tuple[Float[Tensor, "n 12 3"], Float[Tensor, "n 12 3"], MultiviewSamples]:
    """Lixel and parametric joints of a track in the frames in which it is one and the same reference person's.

    The lixel mesh is given the reference's root depth, as the published benchmarks do.
    """
    rows = keypoint_regressor(body, "this benchmark")[list(KEYPOINT_ROWS)]
    motion = person.motion()
    pixels_of = rows @ motion.lixel_mesh(body).vertices
    best, chosen = NEAR, samples[:0]
    for number in sorted(set(samples.person.tolist())):
        inside = (samples.frame >= person.first) & (samples.frame < person.first + len(person))
        candidates = samples[(samples.person == number) & inside]
        if len(candidates.frame):
            here = candidates.camera.project(pixels_of[candidates.frame - person.first])
            there = candidates.camera.project(candidates.joints)
            apart = float(((here - there).norm(dim=-1).mean(-1) / candidates.box[:, 3]).median())
            if apart < best:
                best, chosen = apart, candidates
    at = chosen.frame - person.first
    motion = motion[at]
    for _ in range(2):
        hips = (rows @ motion.lixel_mesh(body).vertices)[:, list(HIPS), 2].mean(-1, keepdim=True)
        motion = motion.at_depth(motion.depth + chosen.root_depth[:, None] - hips)
    params = person.motion()[at].params(body)
    if params is None:
        raise ValueError("the benchmark is for networks with body parameters")
    return rows @ motion.lixel_mesh(body).vertices, rows @ body(params).vertices, chosen


def _table(found: list[dict]) -> Table:
    table = Table("clip", "detector every", "rate", "smoothing", "frames of people", "tracks")
    for mesh in ("lixel", "param"):
        for what in ("MPJPE", "PA", "acceleration"):
            table.add_column(f"{mesh}\n{what}", justify="right")
    for row in found:
        values = [
            row[f"{mesh}_{key}"]
            for mesh in ("lixel", "param")
            for key in ("mpjpe_mm", "pa_mpjpe_mm", "acceleration_mm_per_squared_frame")
        ]
        people = f"{row['samples']} of {row['reference']}"
        shown = [f"{value:.1f}" for value in values]
        table.add_row(
            row["clip"], str(row["detect_every"]), str(row["rate"]), row["smooth"], people, str(row["tracks"]), *shown
        )
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
