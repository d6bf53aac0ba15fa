"""Slow clients are disconnected. Clients that wait for the response are not."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from httpx2 import Client
from serving_clients import form, picture, running, until

from i2l_meshnet.serving import patience
from i2l_meshnet.serving.jobs import Job, JobQueue
from i2l_meshnet.serving.limits import Limits

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
SIZE = 30_000_000
"""Bytes of a response that does not fit into the system's buffers of a connection."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose time limits are shorter than its work."""
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.3)

    def work(job: Job) -> None:
        time.sleep(0.9)
        job.answer = json.dumps({"done": True}).encode()

    with running(JobQueue(work, tmp_path, Limits()), Limits()) as address:
        yield address


@pytest.mark.parametrize(
    ("start", "then"),
    [(b"", b""), (HEAD, b""), (HEAD, b"X: 1\r\n"), (HEAD + b"\r\n", b""), (HEAD + b"\r\n" + HEAD, b"X: 1\r\n")],
    ids=["silent", "stops", "drips", "no second request", "drips the second time"],
)
def test_a_client_that_does_not_finish_its_request_is_disconnected(address: str, start: bytes, then: bytes) -> None:
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port or 0), timeout=0.1) as client:
        client.sendall(start)
        received = b""
        for _ in range(100):
            try:
                more = client.recv(10_000)
            except TimeoutError:
                client.sendall(then)
                continue
            except ConnectionError:
                break
            if not more:
                break
            received += more
        else:
            pytest.fail("still connected")
    assert (b"200 OK" in received) == (b"\r\n\r\n" in start)


def test_a_client_that_waits_for_the_response_gets_it(address: str) -> None:
    with Client(base_url=address) as client:
        for _ in range(2):
            assert client.post("/predict", files=form(picture())).json() == {"done": True}


def received(port: int, request: bytes, silence: float) -> int:
    """Number of bytes that a client receives which reads nothing for `silence` seconds after its request."""
    read = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client, contextlib.suppress(ConnectionError):
        client.sendall(request)
        time.sleep(silence)
        while more := client.recv(1_000_000):
            read += len(more)
    return read


def test_a_client_that_does_not_read_is_disconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALL_SECONDS", 1.0)

    def work(job: Job) -> None:
        path = job.folder / "result"
        path.write_bytes(bytes(SIZE))
        job.files, job.answer = {"result": path}, b"{}"

    with running(JobQueue(work, tmp_path, Limits()), Limits()) as address, Client(base_url=address) as client:
        job = client.post("/jobs", files=form(picture())).headers["location"]
        until(lambda: client.get(job).json()["state"] == "done")
        request = f"GET {job}/files/result HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        port = urlsplit(address).port or 0
        assert received(port, request, 4.0) < SIZE
        assert received(port, request, 0.0) > SIZE


def test_a_server_that_stops_does_not_wait_for_its_clients(tmp_path: Path) -> None:
    started = threading.Event()

    def work(job: Job) -> None:
        started.set()
        while True:
            time.sleep(0.05)
            job.report("working", 0.5)

    queue = JobQueue(work, tmp_path, Limits())
    with running(queue, Limits()) as address, Client(base_url=address, timeout=60) as client:
        threading.Thread(target=lambda: (started.wait(), setattr(queue, "stopping", True))).start()
        assert client.post("/predict", files=form(picture())).status_code == 503
