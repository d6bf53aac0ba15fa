"""`predict --parquet`: pictures in, one table out, by this process or by Ray's workers."""

import dataclasses
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2l_meshnet import assets
from i2l_meshnet.errors import InputError
from i2l_meshnet.fleet.pictures import find_addresses
from i2l_meshnet.fleet.rows import RowMaker
from i2l_meshnet.fleet.table import TableFolder
from i2l_meshnet.prediction.options import PredictOptions
from i2l_meshnet.prediction.predictor import NO_DETECTOR


def run(options: PredictOptions) -> int:
    """Writes the rows of all pictures into the folder `options.table.parquet`; returns 0, or 1 if a picture failed.

    Pictures that have rows there already are skipped, unless `options.output.overwrite`: so the same command goes on
    where a run was broken off. Raises UserError for what concerns all pictures.
    """
    if options.people.hand is not None:
        raise InputError("a table has rows for people: leave out --hand (--hands adds their hands), or --parquet")
    start = time.perf_counter()
    addresses = find_addresses(options.input.inputs, options.input.recursive)
    with TableFolder(options.table.parquet or "") as table:
        if options.output.overwrite:
            table.clear()
        there = table.columns()
        hands = options.people.hands
        if there and hands != ("left_hand" in there):
            raise InputError(
                f"the table in {options.table.parquet} was made {'without' if hands else 'with'} --hands, and its "
                "columns differ: name another folder, or begin anew with --overwrite"
            )
        known = table.pictures()
        wanted = [address for address in addresses if address not in known]
        people = empty = failed = 0
        columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True, highlight=False)
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("predict", total=len(wanted))
            for rows in _tables(wanted, options):
                table.append(rows)
                progress.update(bar, advance=len(rows["picture"].unique()))
                errors = rows["error"].drop_null().to_pylist()
                for error in errors:
                    console.print(f"failed: {error}", markup=False, soft_wrap=True)
                failed += len(errors)
                people += len(rows["person"].drop_null())
                empty += rows["person"].null_count - len(errors)
    told = f"pictures: {len(wanted)}, people: {people}, {time.perf_counter() - start:.1f} s"
    counts = {
        "without a person": empty,
        "failed": failed,
        "skipped, in the table already": len(addresses) - len(wanted),
    }
    told += "".join(f"; {what}: {count}" for what, count in counts.items() if count)
    print(f"{told}; table in {options.table.parquet}")
    return 1 if failed else 0


def _tables(addresses: Sequence[str], options: PredictOptions) -> Iterator[pa.Table]:
    if not addresses:
        return
    detect = options.people.detect and options.people.boxes is None
    if detect and assets.find("detector") is None:
        print(f"warning: {NO_DETECTOR}", file=sys.stderr)
        detect = False
    if options.table.engine == "local":
        yield from RowMaker(options, detect).tables(addresses)
        return
    if importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray needs Ray: pip install 'i2l-meshnet[ray]'")
    # Imported late: it is an extra, and takes seconds.
    from i2l_meshnet.fleet.ray_engine import ray_tables

    if options.network.device == "auto":
        network = dataclasses.replace(options.network, device="cuda" if options.table.gpus_per_worker else "cpu")
        options = dataclasses.replace(options, network=network)
    yield from ray_tables(addresses, options, detect)
