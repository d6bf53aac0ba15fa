"""`predict --parquet`: write one table of all images, in this process or with Ray workers."""

import dataclasses
import importlib.util
import time
from collections.abc import Iterator, Sequence

import pyarrow as pa

from i2l_meshnet import assets
from i2l_meshnet.console import message, output, progress
from i2l_meshnet.errors import InputError
from i2l_meshnet.fleet.addresses import find_addresses
from i2l_meshnet.fleet.row_maker import RowMaker
from i2l_meshnet.fleet.table import TableFolder
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predictor import NO_DETECTOR


def run(options: PredictOptions) -> int:
    """Write the rows of all images into the folder `options.table.parquet`; return 0, or 1 if an image failed.

    Images that already have rows are skipped unless `options.output.overwrite`, so the same command resumes an
    interrupted run. Raises UserError for a problem with all images.
    """
    if options.people.hand is not None:
        raise InputError("a table has rows for whole people: choose people with hands", argument="hand")
    start = time.perf_counter()
    addresses = find_addresses(options.input.inputs, options.input.recursive)
    with TableFolder(options.table.parquet or "") as table:
        if options.output.overwrite:
            table.clear()
        columns = table.columns()
        hands = options.people.hands
        if columns and hands != ("left_hand" in columns):
            raise InputError(
                f"the table in {options.table.parquet} has columns {'without' if hands else 'with'} hands: "
                "name another folder, or overwrite the table",
                argument="hands",
            )
        known = table.pictures()
        missing = [address for address in addresses if address not in known]
        people = empty = failed = 0
        with progress("predicting", len(missing)) as bar:
            for rows in _tables(missing, options):
                table.append(rows)
                bar.advance(len(rows["picture"].unique()))
                errors = rows["error"].drop_null().to_pylist()
                for error in errors:
                    message(f"failed: {error}")
                failed += len(errors)
                people += len(rows["person"].drop_null())
                empty += rows["person"].null_count - len(errors)
    summary = f"pictures: {len(missing)}, people: {people}, {time.perf_counter() - start:.1f} s"
    counts = {
        "without a person": empty,
        "failed": failed,
        "skipped, in the table already": len(addresses) - len(missing),
    }
    summary += "".join(f"; {what}: {count}" for what, count in counts.items() if count)
    output(f"{summary}; table in {options.table.parquet}")
    return 1 if failed else 0


def _tables(addresses: Sequence[str], options: PredictOptions) -> Iterator[pa.Table]:
    if not addresses:
        return
    detect = options.people.detect and options.people.boxes is None
    if detect and assets.find("detector") is None:
        message(f"warning: {NO_DETECTOR}")
        detect = False
    if options.table.engine == "local":
        yield from RowMaker(options, detect).tables(addresses)
        return
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed: pip install 'i2l-meshnet[ray]'", argument="engine")
    # Ray is an extra, and its import takes seconds.
    from i2l_meshnet.fleet.ray_engine import ray_tables

    if options.network.device == "auto":
        network = dataclasses.replace(options.network, device="cuda" if options.table.gpus_per_worker else "cpu")
        options = dataclasses.replace(options, network=network)
    yield from ray_tables(addresses, options, detect)
