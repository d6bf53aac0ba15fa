"""The same rows, made by a Ray Data job: each worker is an actor that holds a predictor."""

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

MOST_BLOCKS = 4096
"""Ray keeps books of every block; a long list of pictures gets larger ones."""
START_DEATHS = 3
"""Workers in a row that may die while they load the network."""


def ray_tables(addresses: Sequence[str], options: PredictOptions, detect: bool) -> Iterator[pa.Table]:
    """Tables of the pictures' rows, in the order in which they get ready.

    Runs on the cluster that RAY_ADDRESS or an earlier `ray.init` names, else on one that lives as long as the job.
    Ray starts a worker that died anew and gives it the block of pictures again. Raises UserError if no worker can
    load its network, or the cluster has no room for one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    mine = not ray.is_initialized()
    if mine:
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_consecutive_actor_init_deaths = START_DEATHS
        blocks = min(math.ceil(len(addresses) / options.network.batch_size), MOST_BLOCKS)
        pictures = ray.data.from_items([{"picture": address} for address in addresses], override_num_blocks=blocks)
        gpus = options.table.gpus_per_worker
        rows = pictures.map_batches(
            RowMaker,
            fn_constructor_args=(options, detect, 1),
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=options.table.workers or _room(gpus)),
            num_cpus=1,
            num_gpus=gpus or None,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayError as error:
        raise _explained(error) from error
    finally:
        if mine:
            ray.shutdown()


def _room(gpus: float) -> int:
    """How many workers the cluster can hold."""
    there = ray.cluster_resources()
    room = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 0))
    if room < 1:
        raise InputError(f"the cluster has no worker with {gpus:g} free GPUs: give fewer", argument="gpus_per_worker")
    return room


def _explained(error: BaseException) -> UserError:
    """The line of the UserError that a worker died of, else what Ray says of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "i2l_meshnet.errors." in line), lines[-1] if lines else "")
    return UserError(f"a worker failed: {told or type(error).__name__}; see Ray's logs (/tmp/ray on that machine)")
