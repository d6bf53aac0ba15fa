"""Which requests are allowed: host names, origins, tokens; and the headers of every response."""

import pytest
from serving_clients import client_of, form, picture
from starlette.testclient import TestClient

from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.request_checks import is_loopback
from i2l_meshnet.serving.guard import COOKIE

TOKEN = "a-token-for-this-test"


@pytest.fixture(scope="module")
def locked(predictor: MeshPredictor, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("locked")
    with client_of(None, predictor, folder, names=("Mesh.example.org",), token=TOKEN) as client:
        yield client


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:8000", True),
        ("192.168.1.7:8000", True),
        ("[::1]:8000", True),
        ("MESH.example.org", True),
        ("mesh.example.org.", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8000", False),
        ("evil.example@localhost:1", True),  # Browsers never send this. The name after the @ counts.
        ("[::1", False),
        ("", False),
    ],
)
def test_only_known_names_and_addresses_are_answered(locked: TestClient, host: str, known: bool) -> None:
    assert locked.get("/health", headers={"Host": host}).status_code == (200 if known else 421)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://localhost:9000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_other_sites_cannot_send_pictures(client: TestClient, headers: dict[str, str], allowed: bool) -> None:
    for method, path in (("POST", "/jobs"), ("DELETE", "/jobs/x")):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code == 403) != allowed
    assert client.get("/health", headers=headers).status_code == 200


def test_without_the_token_only_health_is_allowed(locked: TestClient) -> None:
    for method, path in (
        ("POST", "/predict"),
        ("GET", "/jobs/x"),
        ("GET", "/openapi.json"),
        ("GET", "/static/page.js"),
    ):
        answer = locked.request(method, path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.get("/health").status_code == 200
    page = locked.get("/")
    assert page.status_code == 401
    assert '<label for="token">' in page.text


@pytest.mark.parametrize("wrong", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é", "\udcff"])
def test_a_wrong_token_is_refused(locked: TestClient, wrong: str) -> None:
    header = wrong.encode("utf-8", "surrogateescape")
    assert locked.get("/docs", headers={b"Authorization": b"Bearer " + header}).status_code == 401
    assert locked.get("/docs", headers={b"Cookie": COOKIE.encode() + b"=" + header}).status_code == 401
    assert locked.get("/", params={"token": wrong.encode("utf-8", "replace").decode()}).status_code == 401


def test_the_token_is_accepted_in_a_header_and_from_the_url_into_a_cookie(locked: TestClient) -> None:
    assert locked.get("/docs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    answer = locked.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=lax"} <= {*answer.headers["set-cookie"].lower().split("; ")}
    session = locked.cookies[COOKIE]
    locked.cookies.clear()
    assert session != TOKEN, "browsers send cookies to other ports of the host"
    assert locked.get("/", headers={"Cookie": f"{COOKIE}={TOKEN}"}).status_code == 401
    assert locked.get("/", headers={"Cookie": f"{COOKIE}={session}"}).status_code == 200
    sent = locked.post("/predict", files=form(picture()), headers={"Cookie": f"{COOKIE}={session}"})
    assert sent.status_code == 200


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    for method, path in (("GET", "/"), ("GET", "/static/page.js"), ("GET", "/nothing"), ("POST", "/predict")):
        headers = client.request(method, path).headers
        policy = dict(part.partition(" ")[::2] for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert "unsafe-inline" not in policy["script-src"]
        assert "http" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert "no-store" in client.get("/").headers["cache-control"]


def test_loopback_addresses() -> None:
    hosts = ("127.0.0.1", "::1", "localhost", "127.1.2.3", "0.0.0.0", "::", "192.168.0.1", "mesh.example.org")
    assert [host for host in hosts if is_loopback(host)] == [*hosts[:4]]
