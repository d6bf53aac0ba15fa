"""Options of `predict` by the names of their flags, whichever group they belong to."""

import dataclasses
from pathlib import Path
from typing import Any

from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.options import (
    FLAGS,
    InputOptions,
    NetworkOptions,
    PeopleOptions,
    PredictOptions,
    TableOptions,
)
from i2l_meshnet.prediction.results import SaveOptions
from i2l_meshnet.video.options import ClipOptions


def predict_options(*inputs: str, out: Path = Path("results"), **flags: Any) -> PredictOptions:
    """Options for pictures."""
    fields = {flag: field for field, flag in FLAGS.items()}
    values = {fields.get(name, name): value for name, value in flags.items()}

    def group(kind: type[Any], **given: Any) -> Any:
        names = {field.name for field in dataclasses.fields(kind)} & values.keys()
        return kind(**given, **{name: values.pop(name) for name in names})

    options = PredictOptions(
        group(InputOptions, inputs=inputs),
        out,
        group(NetworkOptions),
        group(PeopleOptions),
        group(Intrinsics),
        group(SaveOptions),
        group(TableOptions),
    )
    assert not values
    return options


def clip_options(*inputs: str, **flags: Any) -> tuple[PredictOptions, ClipOptions]:
    """Options for pictures and for clips."""
    own = {field.name for field in dataclasses.fields(ClipOptions)} & flags.keys()
    clips = ClipOptions(**{name: flags.pop(name) for name in own})
    return predict_options(*inputs, **flags), clips
