"""Kills jobs at random moments, starts them again, and compares what comes out with a run that was left alone.

    python tests/security/kills.py --kills 100                  # every job; prints a table
    python tests/security/kills.py --kills 3 --jobs cache rig   # what CI runs

A kill is SIGKILL to the whole process group. The moments are spread evenly over the length of an undisturbed run, each
at random in its share. Exits with 1 if any run ended otherwise than the undisturbed one, a left-over file included.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import torch

sys.path.append(str(Path(__file__).parent))

from kill_jobs import JOBS, Job, ended, fresh, stand_ins, start

TRIES = 4
"""Runs for one kill at most: one that ends before its moment was not killed, and is done again."""


def run_killed(job: Job, folder: Path, after: float) -> bool:
    """Starts a job and kills it after so many seconds; False if it had ended by then."""
    pid = start(job, folder)
    time.sleep(after)
    found, _ = os.waitpid(pid, os.WNOHANG)
    if found:
        return False
    os.killpg(pid, signal.SIGKILL)
    ended(pid)
    return True


def torture(job: Job, folder: Path, kills: int, moments: random.Random) -> tuple[Counter[str], str]:
    """Kills a job so many times; counts of what came of it, and a word on the first failure."""
    template, place = folder / "template", folder / "run"
    job.prepare(template)
    fresh(template, place)
    if job.warms:
        # Once in this process: what a first use imports and compiles, the forks find done.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            job.run(place)
        fresh(template, place)
    begun = time.perf_counter()
    code = ended(start(job, place))
    length = time.perf_counter() - begun
    if code:
        raise SystemExit(f"{job.name} fails undisturbed:\n{place.with_suffix('.log').read_text()}")
    expected = job.result(place)
    counts: Counter[str] = Counter()
    first = ""
    for number in range(kills):
        for _ in range(TRIES):
            fresh(template, place)
            killed = run_killed(job, place, length * (number + moments.random()) / kills)
            if killed:
                break
        counts["killed" if killed else "too late"] += 1
        begun = time.perf_counter()
        code = ended(start(job, place))
        if not killed:  # A run that finds all done: the same must come of it.
            length = min(length, 0.9 * length + 0.1 * (time.perf_counter() - begun))
        same = code == 0 and job.result(place) == expected
        counts["same" if same else "different"] += 1
        if not same and not first:
            first = f"kill {number}: exit code {code}\n{told(job, place, expected)}"
    return counts, first


def told(job: Job, place: Path, expected: object) -> str:
    """What is different, and what the runs printed."""
    found = job.result(place)
    lines = []
    if isinstance(found, dict) and isinstance(expected, dict):
        lines = [f"{name}" for name in sorted(found.keys() | expected) if found.get(name) != expected.get(name)]
    return "\n".join(["differing files:", *lines, place.with_suffix(".log").read_text()[-3000:]])


def main() -> int:
    """Prints a table; 1 if anything came out different."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each job")
    parser.add_argument("--jobs", nargs="*", choices=JOBS, default=list(JOBS))
    parser.add_argument("--seed", type=int, default=7, help="of the moments")
    options = parser.parse_args()
    # One thread, so that this process can be forked.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    code = 0
    print(f"{'job':12}{'kills':>7}{'too late':>10}{'same':>7}{'different':>11}{'seconds':>9}", flush=True)
    for name in options.jobs:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, stand_ins():
            counts, first = torture(JOBS[name], Path(folder), options.kills, random.Random(f"{options.seed} {name}"))
        row = [counts[what] for what in ("killed", "too late", "same", "different")]
        print(f"{name:12}{row[0]:7}{row[1]:10}{row[2]:7}{row[3]:11}{time.perf_counter() - begun:9.0f}", flush=True)
        if first:
            print(first, flush=True)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
