"""`i2l-meshnet evaluate`."""

from typing import Annotated

import tyro

from i2l_meshnet.evaluation.evaluate import EvaluateOptions, run


def evaluate(options: Annotated[EvaluateOptions, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes]) -> int:
    """Score a network on a benchmark: the published metrics and more, tables, plots, the worst samples."""
    return run(options)
