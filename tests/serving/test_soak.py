"""The server under load, and against a fuzzer that reads its OpenAPI description. `pytest -m slow tests/serving`."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from httpx2 import Client, TimeoutException
from serving_clients import form, picture, running

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving.answers import Work
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.work import Workshop

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("I2L_MESHNET_SOAK_SECONDS", "180"))
FUZZER = shutil.which(os.environ.get("SCHEMATHESIS", "schemathesis"))


def resident() -> float:
    """This process's memory, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def opened() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="memory and open files are read from /proc")
def test_four_clients_with_good_and_bad_pictures(predictor: MeshPredictor, tmp_path: Path) -> None:
    """Memory is flat within 5 % from the first third on, no file or thread is left. Prints p50 and p95."""
    limits = Limits(keep_seconds=2.0, max_waiting=3, max_pixels=2_000_000, max_upload=1.0)
    good = [picture(), picture(900, 1200, "PNG"), picture(640, 480, "WEBP")]
    bad = [b"", b"no picture", picture()[:2000], bytes(1_100_000), picture(2000, 1200)]
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    memory: list[float] = []
    files, threads = opened(), threading.active_count()
    with running(Workshop(Work(predictor, limits), tmp_path, limits), limits) as address:
        end = time.monotonic() + SECONDS

        def visit(number: int) -> None:
            with Client(base_url=address, timeout=300) as client:
                random = np.random.default_rng(number)
                while time.monotonic() < end:
                    kind = random.random()
                    data = good[random.integers(len(good))] if kind < 0.6 else bad[random.integers(len(bad))]
                    begun = time.monotonic()
                    if kind > 0.95:  # goes away before it is answered
                        with contextlib.suppress(TimeoutException):
                            client.post("/predict", files=form(good[0]), timeout=0.02)
                        continue
                    answer = client.post("/predict", files=form(data))
                    statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        seconds.append(time.monotonic() - begun)
                    elif answer.status_code == 503:
                        time.sleep(0.2)

        with ThreadPoolExecutor(4) as clients:
            visits = [clients.submit(visit, number) for number in range(4)]
            while not all(done.done() for done in visits):
                time.sleep(1)
                memory.append(resident())
            for done in visits:
                done.result()
        middle, last = (float(np.median(part)) for part in np.array_split(np.array(memory), 3)[1:])
        print(f"\n{dict(statuses)}; p50 {np.percentile(seconds, 50):.2f} s, p95 {np.percentile(seconds, 95):.2f} s")
        print(f"memory {middle:.0f} MB in the second third, {last:.0f} MB in the last")
        assert set(statuses) <= {200, 413, 415, 422, 503}
        assert statuses[200] > 0
        assert last < 1.05 * middle
        for _ in range(200):
            if not any(tmp_path.iterdir()):
                break
            time.sleep(0.1)
        assert not any(tmp_path.iterdir())
    assert opened() <= files
    assert threading.active_count() <= threads


@pytest.mark.skipif(FUZZER is None, reason="schemathesis is not installed; SCHEMATHESIS names it elsewhere")
def test_the_openapi_description_is_fuzzed_without_a_500(predictor: MeshPredictor, tmp_path: Path) -> None:
    limits = Limits(keep_seconds=5.0, max_upload=1.0)
    with running(Workshop(Work(predictor, limits), tmp_path, limits), limits) as address:
        command = [FUZZER or "", "run", f"{address}/openapi.json", "--checks", CHECKS, "--max-examples", "200"]
        found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    print(found.stdout[-3000:])
    assert found.returncode == 0, found.stdout


CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
