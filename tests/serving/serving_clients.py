"""Pictures, forms, clients and servers for the tests of the server."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving.app import create_app
from i2l_meshnet.serving.jobs import Job, JobQueue
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.patience import ImpatientProtocol
from i2l_meshnet.serving.runner import JobRunner

HOST = "http://localhost:8000"


def picture(width: int = 300, height: int = 400, kind: str = "JPEG") -> bytes:
    """A picture of coloured clouds."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    data = BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(data, kind)
    return data.getvalue()


def form(data: bytes, name: str = "me.jpg") -> dict[str, tuple[str, bytes, str]]:
    return {"photo": (name, data, "image/jpeg")}


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most two minutes."""
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition is not met after two minutes")


@contextlib.contextmanager
def client_of(
    work: Callable[[Job], None] | None,
    predictor: MeshPredictor,
    folder: Path,
    names: tuple[str, ...] = (),
    token: str | None = None,
    **limits: float,
) -> Iterator[TestClient]:
    """A client of an application. work: default: the predictor's. limits: in which it differs from the default."""
    bounds = Limits(**limits)  # pyright: ignore[reportArgumentType]
    queue = JobQueue(work or JobRunner(predictor, bounds), folder, bounds)
    app = create_app(queue, bounds, names, token)
    with TestClient(app, base_url=HOST, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@contextlib.contextmanager
def running(queue: JobQueue, limits: Limits) -> Iterator[str]:
    """The address of a server that listens on a port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = create_app(queue, limits)
    server = uvicorn.Server(uvicorn.Config(app, http=ImpatientProtocol, ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
