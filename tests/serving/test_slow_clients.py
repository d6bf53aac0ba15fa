"""Clients that never come to the point are let go; those that wait for an answer are not."""

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
from serving_clients import form, picture, running

from i2l_meshnet.serving import patience
from i2l_meshnet.serving.jobs import Job, JobQueue
from i2l_meshnet.serving.limits import Limits

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of little patience, whose work takes longer than that."""
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.3)

    def work(job: Job) -> None:
        time.sleep(0.9)
        job.answer = json.dumps({"done": True}).encode()

    with running(JobQueue(work, tmp_path, Limits()), Limits()) as address:
        yield address


@pytest.mark.parametrize(
    ("begun", "then"),
    [(b"", b""), (HEAD, b""), (HEAD, b"X: 1\r\n"), (HEAD + b"\r\n", b""), (HEAD + b"\r\n" + HEAD, b"X: 1\r\n")],
    ids=["silent", "stops", "drips", "asks no more", "drips the second time"],
)
def test_a_client_that_does_not_finish_its_request_is_let_go(address: str, begun: bytes, then: bytes) -> None:
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port or 0), timeout=0.1) as client:
        client.sendall(begun)
        said = b""
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
            said += more
        else:
            pytest.fail("it still listens")
    assert (b"200 OK" in said) == (b"\r\n\r\n" in begun)


def test_a_client_that_waits_for_its_answer_gets_it(address: str) -> None:
    with Client(base_url=address) as client:
        for _ in range(2):
            assert client.post("/predict", files=form(picture())).json() == {"done": True}


SIZE = 30_000_000
"""More than the system's buffers of a connection hold."""


@pytest.fixture
def large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, bytes]]:
    """The port of a server that disconnects clients who read nothing for 0.3 s, and a request for `SIZE` bytes."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.3)

    def work(job: Job) -> None:
        path = job.folder / "result"
        path.write_bytes(bytes(SIZE))
        job.files, job.answer = {"result": path}, b"{}"

    with running(JobQueue(work, tmp_path, Limits()), Limits()) as address, Client(base_url=address) as client:
        place = client.post("/jobs", files=form(picture())).headers["location"]
        while client.get(place).json()["state"] != "done":
            time.sleep(0.02)
        request = f"GET {place}/files/result HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        yield urlsplit(address).port or 0, request.encode()


def received(port: int, request: bytes, silence: float) -> int:
    """How many bytes a client gets that reads nothing for `silence` seconds after its request."""
    read = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client, contextlib.suppress(ConnectionError):
        client.sendall(request)
        time.sleep(silence)
        while more := client.recv(1_000_000):
            read += len(more)
    return read


def test_a_client_that_does_not_read_its_answer_is_disconnected(large_file: tuple[int, bytes]) -> None:
    port, request = large_file
    assert received(port, request, 2.0) < SIZE
    assert received(port, request, 0.0) > SIZE


def test_visitors_of_a_server_that_ends_are_sent_away(tmp_path: Path) -> None:
    begun = threading.Event()

    def work(job: Job) -> None:
        begun.set()
        while True:
            time.sleep(0.05)
            job.report("working", 0.5)

    queue = JobQueue(work, tmp_path, Limits())
    with running(queue, Limits()) as address, Client(base_url=address, timeout=60) as client:
        threading.Thread(target=lambda: (begun.wait(), setattr(queue, "stopping", True))).start()
        assert client.post("/predict", files=form(picture())).status_code == 503
