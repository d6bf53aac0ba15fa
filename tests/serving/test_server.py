"""The HTTP side with a stand-in network: answers, limits, what is refused, and what is left behind."""

import errno
import threading
import time
import zipfile
from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from serving_clients import form, picture
from standing_network import Detector
from starlette.testclient import TestClient

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.serving import app
from i2l_meshnet.serving.jobs import Job
from i2l_meshnet.serving.schema import Answer, JobStatus

Serve = Callable[..., TestClient]


class Waiting:
    """Work that is not done until it is let go."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> None:
        self.begun.set()
        while not self.go.wait(0.01):
            job.report("waiting for the test", 0.5)
        job.answer = b"{}"


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def until(condition: Callable[[], object]) -> None:
    """Waits until a condition holds; a test that hangs here has failed."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited half a minute in vain")


def detail(answer) -> str:
    """The one line of an answer that is a problem."""
    told = answer.json()["detail"]
    assert isinstance(told, str)
    assert "\n" not in told
    assert "Traceback" not in told
    return told


def test_a_photo_becomes_people_and_files(client: TestClient) -> None:
    answer = client.post("/predict?formats=obj&formats=glb&fov=40", files=form(picture()))
    assert answer.status_code == 200
    told = Answer.model_validate(answer.json())
    (person,) = told.people
    assert person.score == pytest.approx(0.9)
    assert person.reliable
    assert person.reprojection_error is not None
    assert person.reprojection_error["median"] < 1
    assert told.intrinsics["source"] == "given"
    assert {"pose_axis_angle", "shape", "translation", "keypoints"} <= answer.json()["people"][0].keys()
    assert set(person.files) == {"lixel", "param"}
    obj, glb = (client.get(person.files["param"][kind]) for kind in ("obj", "glb"))
    assert obj.text.count("\nv ") == 13718
    assert glb.content[:4] == b"glTF"
    for kind in ("lixel_scene", "param_scene"):
        scene = trimesh.load(BytesIO(client.get(told.files[kind]).content), file_type="glb")
        assert isinstance(scene, trimesh.Scene)
        assert len(scene.geometry) == 1
    with np.load(BytesIO(client.get(told.files["arrays"]).content), allow_pickle=False) as arrays:
        assert arrays["lixel_vertices"].shape == (1, 1229, 3)
    assert Image.open(BytesIO(client.get(told.files["overlay"]).content)).size == (300, 400)


def test_everything_at_once_as_a_zip_and_nothing_is_kept(serve: Serve, tmp_path: Path) -> None:
    client = serve()
    answer = client.post("/predict", files=form(picture()), headers={"Accept": "application/zip"})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(BytesIO(answer.content)) as pack:
        assert pack.testzip() is None
        assert {"result.json", "result.npz", "result_overlay.jpg", "result_0_lixel.glb"} <= set(pack.namelist())
    until(lambda: not any(tmp_path.iterdir()))


def test_a_job_tells_how_far_it_is(serve: Serve, waiting: Waiting) -> None:
    client = serve(work=waiting)
    answers = [client.post("/jobs", files=form(picture())) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    first, second = (answer.headers["location"] for answer in answers)
    until(lambda: client.get(first).json()["stage"] == "waiting for the test")
    told = JobStatus.model_validate(client.get(second).json())
    assert (told.state, told.ahead, told.answer) == ("waiting", 1, None)
    assert client.get(f"{second}/results.zip").status_code == 404
    waiting.go.set()
    until(lambda: client.get(second).json()["state"] == "done")
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}


def test_a_job_that_is_done_holds_the_answer(client: TestClient) -> None:
    place = client.post("/jobs", files=form(picture())).headers["location"]
    until(lambda: client.get(place).json()["state"] == "done")
    told = JobStatus.model_validate(client.get(place).json())
    assert told.share <= 1
    assert told.answer is not None
    assert len(told.answer.people) == 1
    with zipfile.ZipFile(BytesIO(client.get(f"{place}/results.zip").content)) as pack:
        assert "result.json" in pack.namelist()
    assert client.delete(place).status_code == 204
    assert client.get(place).status_code == 404
    assert client.get(told.answer.files["overlay"]).status_code == 404


def test_when_all_places_are_taken_others_come_later(serve: Serve, waiting: Waiting) -> None:
    client = serve(work=waiting, max_waiting=2)
    places = [client.post("/jobs", files=form(picture())).headers["location"] for _ in range(2)]
    for path in ("/jobs", "/predict"):
        refused = client.post(path, files=form(picture()))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "busy" in detail(refused)
    assert client.delete(places[1]).status_code == 204
    assert client.post("/jobs", files=form(picture())).status_code == 202


def test_a_bad_upload_gives_its_place_back(serve: Serve) -> None:
    client = serve(max_waiting=1)
    for _ in range(3):
        assert client.post("/jobs", files=form(b"no picture")).status_code == 415
    assert client.post("/predict", files=form(picture())).status_code == 200


def test_work_that_takes_too_long_or_is_cancelled_stops(serve: Serve, waiting: Waiting, tmp_path: Path) -> None:
    client = serve(work=waiting, max_seconds=0.3)
    slow = client.post("/predict", files=form(picture()))
    assert slow.status_code == 504
    assert "longer" in detail(slow)
    place = client.post("/jobs", files=form(picture())).headers["location"]
    until(lambda: client.get(place).json()["state"] == "running")
    client.delete(place)
    until(lambda: client.get("/health").json()["waiting"] == 0)
    until(lambda: not any(tmp_path.iterdir()))


def test_results_go_when_their_time_is_over(serve: Serve, tmp_path: Path) -> None:
    client = serve(keep_seconds=0.2)
    place = client.post("/jobs", files=form(picture())).headers["location"]
    until(lambda: client.get(place).status_code == 404)
    until(lambda: not any(tmp_path.iterdir()))


def test_of_many_results_the_oldest_go(serve: Serve, tmp_path: Path) -> None:
    client = serve(max_kept=2)
    ids = [client.post("/predict", files=form(picture())).json()["id"] for _ in range(4)]
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    assert [client.get(f"/jobs/{identity}").status_code for identity in ids] == [404, 404, 200, 200]


def test_only_so_many_people_are_answered_and_a_score_chooses_them(serve: Serve, predictor: MeshPredictor) -> None:
    client = serve(max_people=2)
    detector, predictor.detector = predictor.detector, Detector(5)
    try:
        many = client.post("/predict", files=form(picture())).json()
        sure = client.post("/predict?score=0.7", files=form(picture())).json()
        predictor.detector = Detector(0)
        nobody = client.post("/predict", files=form(picture())).json()
    finally:
        predictor.detector = detector
    assert (len(many["people"]), many["left_out"]) == (2, 3)
    assert (len(sure["people"]), sure["left_out"]) == (1, 0)
    assert nobody["people"] == []
    assert set(nobody["files"]) == {"arrays", "record"}


@pytest.mark.parametrize(
    ("query", "data", "status", "told"),
    [
        ("", b"not a picture", 415, "not a picture"),
        ("", b"", 422, "empty"),
        ("", picture()[:3000], 422, "damaged"),
        ("", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 30\n%%EndComments\n", 415, "not a picture"),
        ("", picture(kind="PPM"), 415, "PPM"),
        ("", picture(2000, 1200), 413, "2000x1200"),
        ("", b"\xff\xd8" + bytes(600_000), 413, "larger than 0.5 MB"),
        ("?fov=0.5", picture(), 422, "fov"),
        ("?fov=nan", picture(), 422, "fov"),
        ("?focal=1e300", picture(), 422, "focal"),
        ("?focal=500&fov=40", picture(), 422, "not both"),
        ("?score=2", picture(), 422, "score"),
        ("?formats=exe", picture(), 422, "formats"),
        ("?path=/etc/passwd", picture(), 422, "path"),
        ("?url=http://example.org/x.jpg", picture(), 422, "url"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    serve: Serve, tmp_path: Path, query: str, data: bytes, status: int, told: str
) -> None:
    client = serve(max_pixels=1_000_000, max_upload=0.5)
    for path in ("/predict", "/jobs"):
        answer = client.post(path + query, files=form(data, name="../../secret name.jpg"))
        if answer.status_code == 202:  # only decoding showed it
            place = answer.headers["location"]
            until(lambda place=place: client.get(place).json()["state"] == "failed")
            line = client.get(place).json()["problem"]["detail"]
        else:
            assert answer.status_code == status
            line = detail(answer)
        assert told in line
        assert "secret" not in line
        assert str(tmp_path) not in line


def test_forms_that_are_none(serve: Serve) -> None:
    client = serve(max_upload=0.01)
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="x"\r\n\r\n'
    for content, headers, status in [
        (b"x", {"Content-Type": "image/jpeg"}, 415),
        (b"", {}, 415),
        (b"x", {"Content-Type": "multipart/form-data"}, 400),
        (b"no boundary here", boundary, 400),
        (b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\ntext\r\n--b--\r\n', boundary, 422),
        (b"--b\r\nContent-Type: image/jpeg\r\n\r\n", boundary, 400),
        (part.replace(b"photo", b"other") + b"x\r\n--b--\r\n", boundary, 422),
        (part + bytes(30_000), boundary, 413),
        (iter([part, *[bytes(1000)] * 1000]), boundary, 413),  # without a length
    ]:
        answer = client.post("/predict", content=content, headers=headers)
        assert answer.status_code == status
        detail(answer)


def test_a_fault_of_ours_ends_neither_the_server_nor_tells_its_insides(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(job: Job) -> None:
        raise ZeroDivisionError("secret")

    client = serve(work=broken)
    for _ in range(2):
        answer = client.post("/predict", files=form(picture()))
        assert answer.status_code == 500
        assert "secret" not in detail(answer)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_no_file_of_the_machine_can_be_read(client: TestClient) -> None:
    identity = client.post("/predict", files=form(picture())).json()["id"]
    for path in (
        *("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"),
        *(f"/jobs/{identity}/files/{name}" for name in ("upload", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", ".")),
        "/jobs/../../etc/passwd",
        "/jobs/%2e%2e",
    ):
        assert client.get(path).status_code in (404, 405), path


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "PATCH", "OPTIONS"]),
    path=st.sampled_from(
        ["/predict", "/jobs", "/jobs/x", "/jobs/x/files/y", "/", "/docs", "/openapi.json", "/static/"]
    ),
    query=st.dictionaries(
        st.sampled_from(["focal", "fov", "score", "formats", "token", "q"]), st.text(max_size=9), max_size=3
    ),
    content=st.one_of(st.binary(max_size=99), st.binary(max_size=99).map(lambda inside: b"--b\r\n" + inside)),
    kind=st.sampled_from(["multipart/form-data; boundary=b", "multipart/form-data", "image/png", "", "\xff"]),
    cookie=st.binary(max_size=20),
)
def test_whatever_is_sent_is_answered_without_a_500(
    client: TestClient, method: str, path: str, query: dict[str, str], content: bytes, kind: str, cookie: bytes
) -> None:
    headers = {b"Content-Type": kind.encode("latin-1"), b"Cookie": bytes(c for c in cookie if c > 31)}
    answer = client.request(method, path, params=query, content=content, headers=headers)
    assert answer.status_code < 500
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_full_disk_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("i2l_meshnet.serving.app._store", full)
    answer = client.post("/predict", files=form(picture()))
    assert answer.status_code == HTTPStatus.INSUFFICIENT_STORAGE
    assert "space" in detail(answer)


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna"])
def test_a_form_in_a_character_set_that_cannot_be_read_is_a_bad_request(
    client: TestClient, charset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\nxn--a..\r\n--x--\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = client.post("/predict", content=body, headers=headers)
    assert answer.status_code in (400, 422)  # Newer versions of Python can read some of these, and find no file.
    detail(answer)
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_size_limit_is_no_fault_of_ours(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    assert serve(full).post("/predict", files=form(picture())).status_code == 507
    monkeypatch.setattr(app, "_store", full)
    assert serve().post("/predict", files=form(picture())).status_code == 507
    assert "Traceback" not in capsys.readouterr().err


def test_a_check_that_takes_too_long_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "require_readable", lambda job, limits: time.sleep(3))
    begun = time.monotonic()
    answer = serve(max_seconds=0.5).post("/predict", files=form(picture()))
    assert answer.status_code == 408
    assert time.monotonic() - begun < 2.5


def test_results_are_kept_up_to_a_size(serve: Serve, tmp_path: Path) -> None:
    def work(job: Job) -> None:
        path = job.folder / "result"
        path.write_bytes(bytes(400_000))
        job.files, job.answer = {"result": path}, b"{}"

    client = serve(work, max_kept_size=1.0)
    places = [client.post("/jobs", files=form(picture())).headers["location"] for _ in range(3)]
    until(lambda: client.get(places[0]).status_code == 404)
    until(lambda: client.get(places[2]).json()["state"] == "done")
    assert client.get(places[1]).status_code == 200
