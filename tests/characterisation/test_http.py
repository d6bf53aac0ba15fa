"""`serve`: the responses to requests, key by key."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import cv2
import httpx2
import pytest
from golden import Tolerance
from scenes import example
from surfaces import asset
from written import plain

CLOSE = [
    Tolerance(r"(keypoints|joints_image|box|crop_affine)", 0.1, 1e-3),
    Tolerance("reprojection_error", 0.02, 0.01),
    Tolerance(".*", 2e-3, 1e-3),
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """A client of a server in another process, on a free port."""
    asset("detector")
    start = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from i2l_meshnet.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", start, "serve", "--port", "0", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"http://\S+?:\d+/", line)
        assert address is not None, line
        with httpx2.Client(base_url=address[0], timeout=300) as made:
            yield made
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


def anonymous(value: object) -> object:
    """The value without the job's id."""
    text = json.dumps(value)
    job = value.get("id") if isinstance(value, dict) else None
    return plain(json.loads(text.replace(str(job), "JOB"))) if job else plain(value)


def test_a_photo(compare: Callable[..., None], client: httpx2.Client) -> None:
    photo = cv2.imencode(".png", example("standing_jacket", 400))[1].tobytes()
    answer = client.post("/predict?formats=obj&formats=glb&fov=45", files={"photo": ("me.png", photo, "image/png")})
    assert answer.status_code == 200
    content = answer.json()
    files = {name: client.get(address) for name, address in content["files"].items()}
    kinds = {name: [found.status_code, found.headers["content-type"]] for name, found in files.items()}
    compare("http_predict", {"answer": anonymous(content), "files": kinds}, CLOSE)


def test_other_requests(compare: Callable[..., None], client: httpx2.Client) -> None:
    photo = {"photo": ("me.jpg", b"no picture", "image/jpeg")}
    requests = {
        "no picture": client.post("/predict", files=photo),
        "no photo": client.post("/predict"),
        "unknown option": client.post("/predict?hair=long", files=photo),
        "both cameras": client.post("/predict?fov=40&focal=500", files=photo),
        "unknown job": client.get("/jobs/none"),
        "unknown page": client.get("/nothing"),
        "health": client.get("/health"),
        "about": client.get("/about"),
    }
    found = {}
    for name, answer in requests.items():
        kind = answer.headers.get("content-type", "")
        content = answer.json() if kind.startswith("application/json") else None
        # The wording of messages is free.
        shown = sorted(content) if answer.status_code >= 400 and content is not None else content
        if name == "about":
            shown["version"] = ""
        found[name] = [answer.status_code, kind, shown]
    paths = client.get("/openapi.json").json()["paths"]
    described = {
        path: {method: sorted(entry["responses"]) for method, entry in ways.items()} for path, ways in paths.items()
    }
    compare("http_requests", {"answers": found, "paths": described}, [])
