"""`i2l-meshnet serve` for a user: invalid options, files that are removed, and one photo with the default model."""

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
from i2l_meshnet.serving.schema import PhotoAnswer
from i2l_meshnet.serving.server import ServeOptions

EXAMPLE = Path(__file__).parents[2] / "examples" / "standing_phone.jpg"


@pytest.mark.parametrize(
    "options",
    [
        {"max_upload": 0.0},
        {"keep_seconds": math.nan},
        {"port": 70000},
        {"token": "short"},
        {"certificate": Path("here.pem")},
        {"host": "300.1.1.1"},
    ],
    ids=str,
)
def test_invalid_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        server.run(ServeOptions(**options))
    assert [caught.value.argument] == [*options]


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError) as caught:
            server.run(ServeOptions(port=other.getsockname()[1]))
    assert caught.value.argument == "port"


def test_an_invalid_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.TOKEN_VARIABLE, "short")
    with pytest.raises(InputError, match=server.TOKEN_VARIABLE):
        server.run(ServeOptions(port=0))
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("i2l-meshnet[serve]")):
        server.run(ServeOptions())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_kill_and_a_closed_terminal_leave_no_results_behind(number: signal.Signals) -> None:
    folders: list[Path] = []

    def serve() -> None:
        with server._terminable(), server._uploads_folder() as folder:
            folders.append(folder)
            write_bytes(folder / "result", b"")
            assert (folder / "result").stat().st_mode & 0o777 == 0o600
            assert folder.stat().st_mode & 0o777 == 0o700
            signal.raise_signal(number)

    earlier = signal.signal(number, signal.SIG_DFL)  # The server respects that nohup ignores SIGHUP.
    try:
        with pytest.raises(SystemExit) as ended:
            serve()
        assert signal.getsignal(number) == signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with server._terminable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(number, earlier)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not folders[0].exists()


def test_only_the_folder_of_a_killed_server_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_default_model_and_ctrl_c(tmp_path: Path) -> None:
    """The server listens on all addresses, so a token is generated, printed and required."""
    # A background process may have been started with Ctrl-C ignored.
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
                response = client.post("/predict", files={"photo": photo}, headers=headers)
            assert response.status_code == 200
            answer = PhotoAnswer.model_validate(response.json())
            assert answer.picture == {"file": None, "width": 939, "height": 1400}
            (person,) = answer.people
            assert person.reliable
            assert 1 < person.root_depth < 5
            assert client.get(answer.files["overlay"], headers=headers).content[:2] == b"\xff\xd8"
        (folder,) = tmp_path.glob("i2l-meshnet-serve-*")
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "i2l-meshnet: stopped"
    assert "Traceback" not in errors
    assert list(tmp_path.glob("i2l-meshnet-serve-*")) == []
