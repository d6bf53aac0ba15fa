"""Kill jobs at random times, start them again, and compare the results with an undisturbed run.

    python tests/security/kills.py --kills 100                  # every job
    python tests/security/kills.py --kills 3 --jobs cache rig

A kill is SIGKILL to the whole process group. The times are spread over the length of an undisturbed run. Exits with 1
if the final files of any run differ from those of the undisturbed run. Files left behind count.
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
"""Maximum runs per kill: a run that ends before it is killed is repeated."""


def run_killed(job: Job, folder: Path, after: float) -> bool:
    """Start a job and kill it after that many seconds. Returns False if it had ended before."""
    pid = start(job, folder)
    time.sleep(after)
    found, _ = os.waitpid(pid, os.WNOHANG)
    if found:
        return False
    os.killpg(pid, signal.SIGKILL)
    ended(pid)
    return True


def torture(job: Job, folder: Path, kills: int, times: random.Random) -> tuple[Counter[str], str]:
    """Kill a job `kills` times. Returns the counts of outcomes and a description of the first failure."""
    template, place = folder / "template", folder / "run"
    job.prepare(template)
    fresh(template, place)
    if job.warms:
        # The first run imports and compiles, which the forked processes then need not do.
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
            killed = run_killed(job, place, length * (number + times.random()) / kills)
            if killed:
                break
        counts["killed" if killed else "too late"] += 1
        begun = time.perf_counter()
        code = ended(start(job, place))
        if not killed:
            length = min(length, 0.9 * length + 0.1 * (time.perf_counter() - begun))
        same = code == 0 and job.result(place) == expected
        counts["same" if same else "different"] += 1
        if not same and not first:
            first = f"kill {number}: exit code {code}\n{differences(job, place, expected)}"
    return counts, first


def differences(job: Job, place: Path, expected: object) -> str:
    """Which files differ, and what the runs printed."""
    found = job.result(place)
    lines = []
    if isinstance(found, dict) and isinstance(expected, dict):
        lines = [f"{name}" for name in sorted(found.keys() | expected) if found.get(name) != expected.get(name)]
    return "\n".join(["differing files:", *lines, place.with_suffix(".log").read_text()[-3000:]])


def main() -> int:
    """Print a table. Returns 1 if any result differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="kills per job")
    parser.add_argument("--jobs", nargs="*", choices=JOBS, default=list(JOBS))
    parser.add_argument("--seed", type=int, default=7, help="seed of the random times")
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
