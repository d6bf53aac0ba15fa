"""Clients that never come to the point are let go; those that wait for an answer are not."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from httpx2 import Client
from serving_clients import form, picture, running

from i2l_meshnet.serving import patience
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.work import Job, Workshop

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of little patience, whose work takes longer than that."""
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.3)

    def work(job: Job) -> None:
        time.sleep(0.9)
        job.answer = json.dumps({"done": True}).encode()

    with running(Workshop(work, tmp_path, Limits()), Limits()) as address:
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
