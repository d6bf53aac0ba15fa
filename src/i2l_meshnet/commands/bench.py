"""`i2l-meshnet bench`."""

from typing import Annotated

import tyro

from i2l_meshnet.benchmarking import job
from i2l_meshnet.benchmarking.job import BenchOptions


def bench(options: Annotated[BenchOptions, tyro.conf.arg(name="")]) -> int:
    """Measure this machine: ours against the published formulation."""
    return job.run(options)
