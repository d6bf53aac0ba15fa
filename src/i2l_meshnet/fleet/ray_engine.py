"""Make the rows with a Ray Data job. Each worker is an actor with its own predictor."""

import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray  # pyright: ignore[reportMissingImports] (an extra)
import ray.data  # pyright: ignore[reportMissingImports] (an extra)
import ray.exceptions  # pyright: ignore[reportMissingImports] (an extra)

from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.fleet.row_maker import RowMaker
from i2l_meshnet.prediction.options import PredictOptions

MAX_BLOCKS = 4096
"""Maximum number of blocks. Ray stores data about each block, so long lists get larger blocks."""
START_DEATHS = 3
"""Maximum number of consecutive workers that may die while they load the network."""


def ray_tables(addresses: Sequence[str], options: PredictOptions, detect: bool) -> Iterator[pa.Table]:
    """Yield tables of rows in the order in which they are finished.

    The job runs on the cluster of RAY_ADDRESS or of an earlier `ray.init`, or else on a temporary cluster on this
    machine. Ray restarts a worker that died, and repeats its block. Raises UserError if no worker can load its network,
    or the cluster has no resources for a worker.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    temporary = not ray.is_initialized()
    if temporary:
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_consecutive_actor_init_deaths = START_DEATHS
        blocks = min(math.ceil(len(addresses) / options.network.batch_size), MAX_BLOCKS)
        pictures = ray.data.from_items([{"picture": address} for address in addresses], override_num_blocks=blocks)
        gpus = options.table.gpus_per_worker
        rows = pictures.map_batches(
            RowMaker,
            fn_constructor_args=(options, detect, 1),
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=options.table.workers or _max_workers(gpus)),
            num_cpus=1,
            num_gpus=gpus or None,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayError as error:
        raise _explained(error) from error
    finally:
        if temporary:
            ray.shutdown()


def _max_workers(gpus: float) -> int:
    """Number of workers for which the cluster has resources. gpus: per worker."""
    resources = ray.cluster_resources()
    count = int(resources.get("GPU", 0) / gpus) if gpus else int(resources.get("CPU", 0))
    if count < 1:
        raise InputError(f"the cluster has no worker with {gpus:g} free GPUs: give fewer", argument="gpus_per_worker")
    return count


def _explained(error: BaseException) -> UserError:
    """The UserError of the worker, or an error with the last line of Ray's message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if "i2l_meshnet.errors." in line), lines[-1] if lines else "")
    return UserError(f"a worker failed: {reason or type(error).__name__}; see Ray's logs (/tmp/ray on that machine)")
