"""The HTTP application with a stand-in network: answers, limits, refusals, and deleted files."""

import errno
import threading
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from serving_clients import form, picture, until
from standing_network import Detector
from starlette.testclient import TestClient

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving import app
from i2l_meshnet.serving.jobs import Job
from i2l_meshnet.serving.schema import JobStatus, PhotoAnswer

Serve = Callable[..., TestClient]


class Waiting:
    """Work that waits for `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, job: Job) -> None:
        while not self.go.wait(0.01):
            job.report("waiting for the test", 0.5)
        job.answer = b"{}"


def send(client: TestClient, path: str = "/predict", data: bytes | None = None, **more):
    return client.post(path, files=form(picture() if data is None else data), **more)


def submit(client: TestClient) -> str:
    """The address of a new job."""
    return send(client, "/jobs").headers["location"]


def detail(response) -> str:
    """The line of an error response."""
    line = response.json()["detail"]
    assert "\n" not in line
    assert "Traceback" not in line
    return line


def test_a_photo_becomes_people_and_files(client: TestClient) -> None:
    response = send(client, "/predict?formats=obj&formats=glb&fov=40")
    assert response.status_code == 200
    answer = PhotoAnswer.model_validate(response.json())
    (person,) = answer.people
    assert person.score == pytest.approx(0.9)
    assert person.reliable
    assert person.reprojection_error is not None
    assert person.reprojection_error["median"] < 1
    assert answer.intrinsics["source"] == "given"
    assert {"pose_axis_angle", "shape", "translation", "keypoints"} <= response.json()["people"][0].keys()
    assert set(person.files) == {"lixel", "param"}
    obj, glb = (client.get(person.files["param"][kind]) for kind in ("obj", "glb"))
    assert obj.text.count("\nv ") == 13718
    assert glb.content[:4] == b"glTF"
    for kind in ("lixel_scene", "param_scene"):
        scene = trimesh.load(BytesIO(client.get(answer.files[kind]).content), file_type="glb")
        assert isinstance(scene, trimesh.Scene)
        assert len(scene.geometry) == 1
    with np.load(BytesIO(client.get(answer.files["arrays"]).content), allow_pickle=False) as arrays:
        assert arrays["lixel_vertices"].shape == (1, 1229, 3)
    assert Image.open(BytesIO(client.get(answer.files["overlay"]).content)).size == (300, 400)


def test_a_zip_has_all_files_and_nothing_is_kept(serve: Serve, tmp_path: Path) -> None:
    response = send(serve(), headers={"Accept": "application/zip"})
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(BytesIO(response.content)) as pack:
        assert pack.testzip() is None
        assert {"result.json", "result.npz", "result_overlay.jpg", "result_0_lixel.glb"} <= set(pack.namelist())
    until(lambda: not any(tmp_path.iterdir()))


def test_the_state_of_jobs(serve: Serve) -> None:
    waiting = Waiting()
    client = serve(work=waiting)
    first, second = submit(client), submit(client)
    until(lambda: client.get(first).json()["stage"] == "waiting for the test")
    status = JobStatus.model_validate(client.get(second).json())
    assert (status.state, status.ahead, status.answer) == ("waiting", 1, None)
    assert client.get(f"{second}/results.zip").status_code == 404
    waiting.go.set()
    until(lambda: client.get(second).json()["state"] == "done")
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}


def test_a_job_that_is_done_has_the_answer(client: TestClient) -> None:
    job = submit(client)
    until(lambda: client.get(job).json()["state"] == "done")
    status = JobStatus.model_validate(client.get(job).json())
    assert status.share <= 1
    assert status.answer is not None
    assert len(status.answer.people) == 1
    with zipfile.ZipFile(BytesIO(client.get(f"{job}/results.zip").content)) as pack:
        assert "result.json" in pack.namelist()
    assert client.delete(job).status_code == 204
    assert client.get(job).status_code == 404
    assert client.get(status.answer.files["overlay"]).status_code == 404


def test_a_full_queue_refuses_uploads(serve: Serve) -> None:
    client = serve(work=Waiting(), max_waiting=2)
    assert send(client, "/jobs", b"no picture").status_code == 415  # and is not in the queue
    _, job = submit(client), submit(client)
    for path in ("/jobs", "/predict"):
        refused = send(client, path)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        detail(refused)
    assert client.delete(job).status_code == 204
    assert send(client, "/jobs").status_code == 202


def test_work_stops_after_its_time_limit_and_on_delete(serve: Serve, tmp_path: Path) -> None:
    client = serve(work=Waiting(), max_seconds=0.3)
    assert send(client).status_code == 504
    job = submit(client)
    until(lambda: client.get(job).json()["state"] == "running")
    client.delete(job)
    until(lambda: client.get("/health").json()["waiting"] == 0)
    until(lambda: not any(tmp_path.iterdir()))


def write_result(job: Job) -> None:
    path = job.folder / "result"
    path.write_bytes(bytes(400_000))
    job.files, job.answer = {"result": path}, b"{}"


@pytest.mark.parametrize(
    ("limits", "kept"), [({"keep_seconds": 0.2}, 0), ({"max_kept": 2}, 2), ({"max_kept_size": 1.0}, 2)]
)
def test_old_results_are_deleted(serve: Serve, tmp_path: Path, limits: dict[str, float], kept: int) -> None:
    client = serve(write_result, **limits)
    jobs = [submit(client) for _ in range(4)]
    until(lambda: client.get(jobs[3]).status_code == 404 or client.get(jobs[3]).json()["state"] == "done")
    until(lambda: len(list(tmp_path.iterdir())) == kept)
    assert [client.get(job).status_code for job in jobs] == [404] * (4 - kept) + [200] * kept


def test_limits_on_people_and_their_score(serve: Serve, predictor: MeshPredictor) -> None:
    client = serve(max_people=2)
    detector, predictor.detector = predictor.detector, Detector(5)
    try:
        many, sure = send(client).json(), send(client, "/predict?score=0.7").json()
        predictor.detector = Detector(0)
        nobody = send(client).json()
    finally:
        predictor.detector = detector
    assert (len(many["people"]), many["left_out"]) == (2, 3)
    assert (len(sure["people"]), sure["left_out"]) == (1, 0)
    assert nobody["people"] == []
    assert set(nobody["files"]) == {"arrays", "record"}


@pytest.mark.parametrize(
    ("query", "data", "status", "reason"),
    [
        ("", b"not a picture", 415, ""),
        ("", b"", 422, ""),
        ("", picture()[:3000], 422, ""),
        ("", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 30\n%%EndComments\n", 415, ""),
        ("", picture(kind="PPM"), 415, "PPM"),
        ("", picture(2000, 1200), 413, "2000x1200"),
        ("", b"\xff\xd8" + bytes(600_000), 413, "0.5 MB"),
        ("?fov=nan", picture(), 422, "fov"),
        ("?focal=500&fov=40", picture(), 422, "focal"),
        ("?formats=exe", picture(), 422, "formats"),
        ("?path=/etc/passwd", picture(), 422, "path"),
    ],
    ids=str,
)
def test_wrong_uploads(serve: Serve, tmp_path: Path, query: str, data: bytes, status: int, reason: str) -> None:
    client = serve(max_pixels=1_000_000, max_upload=0.5)
    for path in ("/predict", "/jobs"):
        response = client.post(path + query, files=form(data, name="../../secret name.jpg"))
        if response.status_code == 202:  # Only decoding finds the error.
            job = response.headers["location"]
            until(lambda job=job: client.get(job).json()["state"] == "failed")
            line = client.get(job).json()["problem"]["detail"]
        else:
            assert response.status_code == status
            line = detail(response)
        assert reason in line
        assert "secret" not in line
        assert str(tmp_path) not in line


def test_wrong_forms(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    client = serve(max_upload=0.01)
    multipart = "multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="x"\r\n\r\n'
    text = b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\nxn--a..\r\n--b--\r\n'
    for content, kind, statuses in [
        (b"x", "image/jpeg", (415,)),
        (b"x", "multipart/form-data", (400,)),
        (b"no boundary here", multipart, (400,)),
        (text, multipart, (422,)),
        (b"--b\r\nContent-Type: image/jpeg\r\n\r\n", multipart, (400,)),
        (part.replace(b"photo", b"other") + b"x\r\n--b--\r\n", multipart, (422,)),
        (part + bytes(30_000), multipart, (413,)),
        (iter([part, *[bytes(1000)] * 1000]), multipart, (413,)),  # without a length
        # Newer versions of Python can read some of these character sets, and find no file.
        *((text, f"{multipart}; charset={charset}", (400, 422)) for charset in ("undefined", "punycode", "idna")),
    ]:
        response = client.post("/predict", content=content, headers={"Content-Type": kind})
        assert response.status_code in statuses
        detail(response)
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_logged_and_not_shown(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(job: Job) -> None:
        raise ZeroDivisionError("secret")

    client = serve(work=broken)
    for _ in range(2):
        response = send(client)
        assert response.status_code == 500
        assert "secret" not in detail(response)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_no_other_file_can_be_read(client: TestClient) -> None:
    identity = send(client).json()["id"]
    for path in (
        *("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"),
        *(f"/jobs/{identity}/files/{name}" for name in ("upload", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", ".")),
        "/jobs/../../etc/passwd",
        "/jobs/%2e%2e",
    ):
        assert client.get(path).status_code in (404, 405), path


def test_a_full_disk_and_a_file_size_limit(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    assert send(serve(full)).status_code == 507
    monkeypatch.setattr(app, "_store", full)
    assert send(serve()).status_code == 507
    assert "Traceback" not in capsys.readouterr().err


def test_the_check_of_an_upload_has_a_time_limit(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "require_readable", lambda job, limits: time.sleep(3))
    start = time.monotonic()
    assert send(serve(max_seconds=0.5)).status_code == 408
    assert time.monotonic() - start < 2.5
