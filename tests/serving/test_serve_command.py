"""`i2l-meshnet serve` as a user meets it: options that do not fit, and one photo through the default model."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Client

from i2l_meshnet.errors import InputError
from i2l_meshnet.folders import LOCK
from i2l_meshnet.io import write_bytes
from i2l_meshnet.serving import server
from i2l_meshnet.serving.schema import Answer
from i2l_meshnet.serving.server import ServeOptions

EXAMPLE = Path(__file__).parents[2] / "examples" / "standing_phone.jpg"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_upload": 0.0}, "--max-upload is a number greater than 0"),
        ({"keep_seconds": math.nan}, "--keep-seconds is a number greater than 0"),
        ({"port": 70000}, "--port"),
        ({"token": "short"}, "--token is at least 16"),
        ({"certificate": Path("here.pem")}, "give both"),
        ({"host": "300.1.1.1"}, "cannot listen on 300.1.1.1"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        server.run(ServeOptions(**options))
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}: Address already in use; choose another --port"):
            server.run(ServeOptions(port=port))


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install 'i2l-meshnet[serve]'")):
        server.run(ServeOptions())


def test_a_token_of_the_environment_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.TOKEN_VARIABLE, "short")
    with pytest.raises(InputError, match=server.TOKEN_VARIABLE):
        server.run(ServeOptions(port=0))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_and_a_closed_terminal_leave_no_results_behind(number: signal.Signals) -> None:
    places: list[Path] = []

    def serve() -> None:
        with server._terminable(), server._uploads_folder() as folder:
            places.append(folder)
            (folder / "result").touch()
            signal.raise_signal(number)

    earlier = signal.signal(number, signal.SIG_DFL)  # Under nohup SIGHUP is ignored, which the server respects.
    try:
        with pytest.raises(SystemExit) as ended:
            serve()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, earlier)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not places[0].exists()


def test_a_server_under_nohup_goes_on_when_the_terminal_closes() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with server._terminable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_killed_server_left_is_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal; from i2l_meshnet.serving import server\n"
        "with server._uploads_folder() as folder:\n"
        "    (folder / 'photo').touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
    (killed,) = tmp_path.iterdir()
    private = tmp_path / "private"
    private.mkdir()
    (private / LOCK).touch()
    (tmp_path / f"{server.FOLDER_PREFIX}link").symlink_to(private)
    with server._uploads_folder() as living:
        assert not killed.exists()
        with server._uploads_folder():
            assert living.is_dir()
        assert (private / LOCK).exists()


def test_files_of_visitors_are_for_this_user_only() -> None:
    with server._uploads_folder() as folder:
        write_bytes(folder / "result", b"")
        assert (folder / "result").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_default_model_answers_and_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    """Bound to all addresses, so that the token is made up, printed and asked for."""
    # Whoever starts the tests in the background may have them ignore Ctrl-C.
    start = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from i2l_meshnet.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", start, "serve", "--host", "0.0.0.0", "--port", "0"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+)/\?token=([\w-]{32})", line)
        assert found is not None, line
        with Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=120) as client:
            assert client.get("/docs").status_code == 401
            headers = {"Authorization": f"Bearer {found[2]}"}
            with EXAMPLE.open("rb") as photo:
                answer = client.post("/predict", files={"photo": photo}, headers=headers)
            assert answer.status_code == 200
            told = Answer.model_validate(answer.json())
            assert told.picture == {"file": None, "width": 939, "height": 1400}
            assert len(told.people) == 1
            assert told.people[0].reliable
            assert 1 < told.people[0].root_depth < 5
            assert client.get(told.files["overlay"], headers=headers).content[:2] == b"\xff\xd8"
        folders = list(tmp_path.glob("i2l-meshnet-serve-*"))
        assert len(folders) == 1
        assert folders[0].stat().st_mode & 0o077 == 0
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "i2l-meshnet: stopped"
    assert "Traceback" not in errors
    assert list(tmp_path.glob("i2l-meshnet-serve-*")) == []
