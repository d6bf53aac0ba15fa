"""The `predict` command for photos and clips. A clip becomes videos, tracks and animation."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from i2l_meshnet.animation import require_usd
from i2l_meshnet.console import counted, message, output, progress
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.prediction.images import SUFFIXES, PictureFile, find_pictures
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predict_files import (
    boxes_for,
    load_predictor,
    predict_pictures,
    require_writable,
    result_names,
)
from i2l_meshnet.prediction.staging import discard, is_finished, record_of
from i2l_meshnet.video.options import ClipOptions
from i2l_meshnet.video.pipeline import ClipJob
from i2l_meshnet.video.source import VIDEO_SUFFIXES, Clip, is_clip
from i2l_meshnet.video.unfinished import unfinished


def run(options: PredictOptions, clip_options: ClipOptions) -> int:
    """Process photos and clips. Return the exit code: 0, or 1 if a file could not be read or written.

    Raises UserError for a problem with all files.
    """
    if "usd" in options.output.formats:
        require_usd()
    inputs = options.input
    found = find_pictures(inputs.inputs, inputs.recursive, options.out, (*SUFFIXES, *VIDEO_SUFFIXES))
    named = [*zip(found, result_names(found), strict=True)]
    clips = [(picture, name) for picture, name in named if is_clip(picture.path)]
    pictures = [pair for pair in named if pair not in clips]
    code = 0
    if pictures:
        code = predict_pictures(options, pictures)
    if clips:
        code |= _predict_clips(options, clip_options, clips)
    return code


def _predict_clips(
    options: PredictOptions, clip_options: ClipOptions, clips: Sequence[tuple[PictureFile, Path]]
) -> int:
    """clips: with the names of their results, relative to the output folder."""
    people = options.people
    if people.hand is not None:
        raise InputError("only photos can show a hand alone: for clips, choose people with hands", argument="hand")
    require_writable(options.out)
    boxes = None
    if people.boxes is not None:
        boxes = boxes_for(people.boxes, [clip for clip, _ in clips], people.max_people)
    predictor, code = None, 0
    for clip, name in clips:
        base = options.out / name
        if is_finished(base) and not options.output.overwrite:
            discard(unfinished(base))
            message(f"skipped {clip.path}: {record_of(base)} exists; set overwrite to replace it")
            continue
        try:
            source = Clip(clip.path, options.input.max_pixels, clip_options.max_clip_length)
            predictor = predictor or load_predictor(options, boxes)
            own_boxes = None if boxes is None else boxes.of(clip.path, clip.relative)
            with _Bars(source) as bars:
                summary = ClipJob(source, base, predictor, options, clip_options, own_boxes, bars.report).run()
            if source.frame_count is not None and bars.frames < 0.9 * source.frame_count:
                count = f"{bars.frames} of about {source.frame_count}"
                message(f"warning: {clip.path} ends early: {count} frames can be read")
        except UserError as error:
            code = 1
            shown = str(error) if str(clip.path) in str(error) else f"{clip.path}: {error}"
            message(f"failed: {shown}")
        else:
            output(summary)
    return code


class _Bars(contextlib.ExitStack):
    """Shows the progress of a clip, with a bar for each task."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip, self.frames, self._task = clip, 0, ""

    def report(self, task: str, done: int, total: int | None) -> None:
        """A `Report`."""
        if task != self._task:
            if not self._task and done:
                message(f"resuming {self.clip.path} after {counted(done, 'frame')}")
            self.close()
            self._bar = self.enter_context(progress(f"{self.clip.path.name}: {task}", total, done))
            self._task = task
        self._bar.update(done, total)
        self.frames = max(self.frames, done)
