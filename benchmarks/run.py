"""This machine's speed, each row beside what it is compared with: `python benchmarks/run.py`."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

# As `i2l-meshnet` does before PyTorch is loaded: waiting threads sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import tyro
from rich.console import Console
from rich.table import Table

import machine
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.io import atomic_path
from i2l_meshnet.models.loading import choose_device
from i2l_meshnet.precision import DTYPES, supported_precisions
from rows import COLUMNS, Row, markdown_table

if TYPE_CHECKING:
    # Imported late: they import all that is measured, training included, which takes seconds.
    from measures import Bench

Group = Literal[
    "procrustes",
    "body",
    "render",
    "published",
    "default",
    "runtimes",
    "gpu",
    "parts",
    "memory",
    "cold",
    "training",
    "loader",
    "evaluation",
    "predict",
]


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Measure this machine: ours against the published formulation, in turns."""

    only: tuple[Group, ...] = get_args(Group)
    """What to measure: alignment, body layer, rendering, the published network, the default one, both by other runtimes
    (extra openvino), what a GPU does, the rewritten parts, memory, first results, training step, loader, evaluation,
    the whole of predict. The quick ones come first. Each row is printed as soon as it is measured."""
    quick: bool = False
    """Few turns and small batches: some minutes in place of many."""
    weights: Path | None = None
    """Checkpoint or snapshot of a published network to measure; made-up weights if not given."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for --weights."""
    photo: Path | None = None
    """Photo of people for `predict`; a made-up picture, taken as one person, if not given."""
    photos: int = 100
    """Copies of the photo for `predict` (8 with --quick)."""
    compile: bool = False
    """Measure torch.compile too, which takes minutes to compile: the published network and the training step."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""
    flush: bool = False
    """Let the processor take numbers below 1e-38 for zero, which the published volumes are full of and which cost some
    processors most of their time; as PyTorch does not by itself."""
    threads: int | None = None
    """Threads of PyTorch; as many as it likes if not given."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu: count this process's processor time, on a machine that has other work; take it with --threads 1."""
    json: Path | None = None
    """Write the rows to this file too."""
    markdown: bool = False
    """Print the table as Markdown."""
    update: Path | None = None
    """Markdown file in which the table replaces the part between <!-- bench --> and <!-- /bench -->."""

    def __post_init__(self) -> None:
        if self.photos < 1 or (self.threads is not None and self.threads < 1):
            raise InputError("--photos and --threads are at least 1")
        if self.update is not None and not self.update.is_file():
            raise InputError(f"there is no file {self.update} to update")
        if self.photo is not None and not self.photo.is_file():
            raise InputError(f"there is no photo {self.photo}")


def run(options: BenchOptions) -> int:
    """Measures, prints and writes; returns the exit code 0. Raises UserError for what cannot be measured."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.flush:
        # Before PyTorch starts its threads, which take it over.
        torch.set_flush_denormal(True)
    device = choose_device(options.device)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    before = _load()
    supported = supported_precisions(device)
    peaks = {
        precision: round(machine.matmul_peak(device, kind, clock))
        for precision, kind in DTYPES.items()
        if precision in supported
    }
    bench = _bench(options, device, clock)
    rows: list[Row] = []
    wanted = {*options.only, *(["compiled"] if options.compile else [])}
    for group, measure in _measures(options, bench).items():
        if group in wanted:
            for row in measure():
                print(" | ".join(row.cells()), file=sys.stderr, flush=True)
                rows.append(row)
    facts = {
        "machine": machine.describe(device),
        "load_before_and_after": [before, _load()],
        "clock": options.clock,
        "matmul_peak_gflops": peaks,
    }
    _print(facts, rows, options.markdown)
    if options.update is not None:
        _update(options.update, "\n\n".join(_facts(facts)) + "\n\n" + markdown_table(rows))
    if options.json is not None:
        content = {**facts, "rows": [dataclasses.asdict(row) for row in rows]}
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(content, indent=1))
    return 0


def _update(file: Path, text: str) -> None:
    """Replace what is between the two marks of a Markdown file. Raise InputError if it has none."""
    start, end = "<!-- bench -->", "<!-- /bench -->"
    before, found, rest = file.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise InputError(f"{file} has no part between {start} and {end}")
    with atomic_path(file) as path:
        path.write_text(f"{before}{start}\n\n{text}\n{end}{after}", encoding="utf-8")


def _bench(options: BenchOptions, device: torch.device, clock: Callable[[], float]) -> "Bench":
    from measures import Bench

    large = (8,) if options.quick else (8, 32) if device.type == "cpu" else (64, 256)
    return Bench(device, 3 if options.quick else 9, 5.0 if options.quick else 20.0, clock, (1, *large))


def _measures(options: BenchOptions, bench: "Bench") -> dict[str, Callable[[], Iterable[Row]]]:
    """What makes each group's rows."""
    import measures

    photos = min(options.photos, 8) if options.quick else options.photos
    return {
        "procrustes": lambda: measures.procrustes(bench),
        "body": lambda: measures.body_layer(bench),
        "render": lambda: measures.rendering(bench),
        "published": lambda: measures.published_network(bench, options.weights, options.body_dir),
        "default": lambda: measures.default_network(bench),
        "compiled": lambda: measures.compiled_network(bench, options.weights, options.body_dir),
        "runtimes": lambda: measures.runtimes(bench, options.weights, options.body_dir),
        "gpu": lambda: measures.gpu(bench),
        "parts": lambda: measures.parts(bench),
        "memory": lambda: measures.pass_memory(bench),
        "cold": lambda: measures.cold_start(options.photo),
        "training": lambda: measures.training_step(bench, 4 if options.quick else 16, options.compile),
        "loader": lambda: measures.loader(bench, 16 if options.quick else 48),
        "evaluation": lambda: measures.evaluation(bench),
        "predict": lambda: measures.whole_path(bench, options.photo, photos),
    }


def _print(facts: dict[str, Any], rows: Sequence[Row], markdown: bool) -> None:
    console = Console(highlight=False)
    for line in _facts(facts):
        console.print(line, markup=False, soft_wrap=True)
    if markdown:
        print("", markdown_table(rows), sep="\n", end="")
        return
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)


def _facts(facts: dict[str, Any]) -> tuple[str, str]:
    peaks = ", ".join(f"{kind} {value:,} GFLOP/s" for kind, value in facts["matmul_peak_gflops"].items())
    loads = " to ".join("unknown" if load is None else f"{load:.1f}" for load in facts["load_before_and_after"])
    return facts["machine"], f"clock: {facts['clock']}; load {loads}; matrix products reach {peaks}"


def _load() -> float | None:
    """Processes that wanted to run in the last minute, where the system counts them."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and return the exit code; errors that the user can fix are printed as one line."""
    try:
        return run(tyro.cli(BenchOptions, prog="benchmarks/run.py", args=arguments))
    except UserError as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
