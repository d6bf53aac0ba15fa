"""Load test of the server for an hour: `python scripts/soak_server.py` (`make soak`).

Starts `i2l-meshnet serve` with the default model and small limits. Four clients send photos, damaged and oversized
images, playlists, malformed forms and paths of other files, and some disconnect early. Exits with 1 if a status is not
the one of docs/serve.md, if a response contains a file of the machine, if memory grew by more than 5 % (median of the
first sixth to the last), or if open files, threads or results remain when the server is idle again. Linux only: it
reads /proc.
"""

import argparse
import contextlib
import operator
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from httpx2 import Client, TimeoutException
from PIL import Image

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.jpg"))
KEEP_SECONDS, MAX_PIXELS, MAX_UPLOAD = 10, 2_000_000, 1.0
SERVE = [
    *("serve", "--port", "0", "--max-waiting", "2", "--keep-seconds", str(KEEP_SECONDS)),
    *("--max-pixels", str(MAX_PIXELS), "--max-upload", str(MAX_UPLOAD)),
]
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from i2l_meshnet.cli import main; sys.exit(main())"
)
"""Resets the handler of Ctrl-C, which child processes of a background job ignore."""
GROWTH = 1.05
MINIMUM_WARM_UP = 60.0
"""Seconds; memory grows until every kind of image has been processed."""
LATE_THREADS = 6
"""Threads that may start after the warm-up: the event loop's pool starts them when needed."""
NAMED = {200, 202, 204, 400, 404, 405, 413, 415, 422, 503}
"""The statuses that docs/serve.md allows for these requests."""


class Server:
    """The server process and its figures from /proc."""

    def __init__(self, process: subprocess.Popen[str], address: str, folder: Path) -> None:
        self.process, self.address, self._folder = process, address, folder
        self._proc, self._started = Path(f"/proc/{process.pid}"), time.monotonic()

    def memory(self) -> float:
        """Resident memory, MB."""
        return int((self._proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def left(self) -> tuple[int, int, int]:
        """Open files, threads, and folders of uploads and results."""
        kept = sum(1 for folder in self._folder.glob("i2l-meshnet-serve-*") for _ in folder.iterdir())
        return len(list((self._proc / "fd").iterdir())), len(list((self._proc / "task").iterdir())), kept

    def busy(self) -> float:
        """Processor time of server and clients so far, as a fraction of one processor."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        served = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return (served + time.process_time()) / (time.monotonic() - self._started)

    def quiet(self) -> tuple[int, int, int]:
        """The same after the server has been idle for a while."""
        time.sleep(KEEP_SECONDS + 5)
        return self.left()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *SERVE],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": folder, "OMP_NUM_THREADS": "1"},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found is None:
                raise SystemExit(f"the server did not start: {line!r}")
            yield Server(process, found[0], Path(folder))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def encoded(picture: Image.Image, kind: str) -> bytes:
    data = BytesIO()
    picture.save(data, kind)
    return data.getvalue()


def good_pictures() -> list[bytes]:
    """The examples, original and smaller, in several formats."""
    photos = [Image.open(path).convert("RGB") for path in EXAMPLES]
    smaller = [photo.resize((photo.width // 2, photo.height // 2)) for photo in photos]
    whole = [path.read_bytes() for path in EXAMPLES]
    return whole + [encoded(photo, kind) for photo, kind in zip(smaller, ("WEBP", "JPEG", "TIFF"), strict=True)]


def bad_pictures() -> list[bytes]:
    """Files that are not images, are damaged, or exceed the limits."""
    photo = EXAMPLES[0].read_bytes()
    return [
        b"",
        b"no picture",
        photo[:20_000],
        bytes(int(MAX_UPLOAD * 1.1e6)),
        encoded(Image.new("L", (20_000, 20_000)), "PNG"),
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 30\n%%EndComments\n(/etc/passwd) run\n",
        b"\0\0\0\x20ftypisom" + photo[:5000],
    ]


PATHS = (
    *("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/jobs/..%2f..%2fetc%2fpasswd"),
    *("/jobs/x/files/..%2f..%2f..%2fetc%2fpasswd", "/predict?photo=/etc/passwd", "/?url=file:///etc/passwd"),
)


class Visitors:
    """The clients and the responses they got."""

    def __init__(self, server: Server, max_busy: float) -> None:
        self._server, self._max_busy = server, max_busy
        self._good, self._bad = good_pictures(), bad_pictures()
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []

    def run(self, seconds: float) -> list[float]:
        """Run four clients; return the server's memory in each second, MB."""
        end, memory = time.monotonic() + seconds, []
        with ThreadPoolExecutor(4) as clients:
            visits = [clients.submit(self._visit, number, end) for number in range(4)]
            while not all(visit.done() for visit in visits):
                time.sleep(1)
                memory.append(self._server.memory())
                if len(memory) % 60 == 0:
                    print(f"{len(memory)} s: {memory[-1]:.0f} MB, {self._server.left()}", flush=True)
            for visit in visits:
                visit.result()
        return memory

    def _visit(self, number: int, end: float) -> None:
        random = np.random.default_rng(number)
        with Client(base_url=self._server.address, timeout=300) as client:
            while time.monotonic() < end:
                while self._server.busy() > self._max_busy and time.monotonic() < end:
                    time.sleep(0.1)
                kind = random.random()
                if kind < 0.4:
                    self._send(client, "good", self._good[random.integers(len(self._good))], {200, 503})
                elif kind < 0.5:
                    self._job(client, self._good[random.integers(len(self._good))])
                elif kind < 0.8:
                    self._send(client, "bad", self._bad[random.integers(len(self._bad))], {413, 415, 422, 503})
                elif kind < 0.9:
                    path = PATHS[random.integers(len(PATHS))]
                    self._note("path", client.get(path), {200, 404, 405} if path == PATHS[-1] else {404, 405})
                elif kind < 0.95:
                    answer = client.post(
                        "/predict", content=b"--b\r\n", headers={"Content-Type": "multipart/form-data"}
                    )
                    self._note("form", answer, {400, 503})
                else:  # disconnect before the response
                    with contextlib.suppress(TimeoutException):
                        client.post("/predict", files={"photo": self._good[0]}, timeout=0.05)

    def _send(self, client: Client, what: str, data: bytes, right: set[int]) -> None:
        start = time.monotonic()
        answer = client.post("/predict", files={"photo": ("../../etc/passwd", data)})
        self._note(what, answer, right)
        if answer.status_code == 200:
            self.seconds.append(time.monotonic() - start)
        elif answer.status_code == 503:
            time.sleep(min(int(answer.headers["retry-after"]), 2))

    def _job(self, client: Client, data: bytes) -> None:
        """Submit a job, poll it, and download one file. Its results are not deleted, so they must expire."""
        answer = client.post("/jobs", files={"photo": data})
        self._note("job", answer, {202, 503})
        while answer.status_code in (200, 202) and answer.json()["state"] in ("waiting", "running"):
            time.sleep(0.2)
            answer = client.get(f"/jobs/{answer.json()['id']}")
        if answer.status_code == 200 and answer.json()["answer"]:
            self._note("file", client.get(answer.json()["answer"]["files"]["overlay"]), {200})

    def _note(self, what: str, answer, right: set[int]) -> None:
        with self._lock:
            self.statuses[f"{what} {answer.status_code}"] += 1
            if answer.status_code not in right & NAMED or b"root:" in answer.content[:100_000]:
                self.wrong.append(f"{what}: {answer.status_code} {answer.text[:200]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="duration, after a warm-up of a twentieth of it")
    parser.add_argument("--busy", type=float, default=2.0, help="maximum average processor use (0.5: half a processor)")
    options = parser.parse_args()
    with serving() as server:
        visitors = Visitors(server, options.busy)
        visitors.run(max(options.seconds / 20, MINIMUM_WARM_UP))
        before = server.quiet()
        memory = visitors.run(options.seconds)
        after = server.quiet()
        busy = server.busy()
    sixths = np.array_split(np.array(memory), 6)
    first, last = float(np.median(sixths[0])), float(np.median(sixths[-1]))
    for kind, count in sorted(visitors.statuses.items()):
        print(f"{kind}: {count}")
    if visitors.seconds:
        p50, p95 = np.percentile(visitors.seconds, (50, 95))
        print(
            f"{len(visitors.seconds)} photos answered: p50 {p50:.2f} s, p95 {p95:.2f} s, at {busy:.2f} of a processor"
        )
    print(f"memory: {first:.0f} MB in the first sixth, {last:.0f} MB in the last ({last / first - 1:+.1%})")
    print(f"remaining when idle, after the warm-up and at the end (files, threads, results): {before}, {after}")
    faults = [*visitors.wrong[:10]]
    faults += ["memory grew"] if last > GROWTH * first else []
    allowed = (before[0], before[1] + LATE_THREADS, 0)
    faults += ["files, threads or results remain"] if any(map(operator.gt, after, allowed)) else []
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
