"""The `serve` command: a web page and an HTTP endpoint on this machine."""

import dataclasses
import importlib.util
import os
import re
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Literal

from i2l_meshnet import assets
from i2l_meshnet.console import message
from i2l_meshnet.devices import named_device
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.folders import remove, work_folder
from i2l_meshnet.locks import fcntl
from i2l_meshnet.models.published import run_code
from i2l_meshnet.prediction.predictor import NO_DETECTOR, MeshPredictor
from i2l_meshnet.request_checks import is_loopback
from i2l_meshnet.serving.jobs import JobQueue
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.runner import JobRunner

FOLDER_PREFIX = "i2l-meshnet-serve-"
TOKEN_VARIABLE = "I2L_MESHNET_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
_CONNECTIONS = 200
_STOP_SECONDS = 5
"""Time limit for unfinished responses when the server stops."""


@dataclasses.dataclass(frozen=True)
class ServeOptions(Limits):
    """A web page and an HTTP endpoint that turn photos into meshes. Nothing leaves this machine."""

    host: str = "127.0.0.1"
    """Address to listen on. An address that other machines can reach, such as 0.0.0.0, requires a token."""
    port: int = 8000
    """Port to listen on; 0 picks a free one."""
    token: str | None = None
    """Access token: at least 16 letters, digits, - or _. Default: the environment variable
    I2L_MESHNET_TOKEN. Prefer it: other users of this machine can see the options of a command, but not its variables.
    If neither is given and --host requires a token, one is generated and printed."""
    allow_host: tuple[str, ...] = ()
    """Additional host names of this server, such as mesh.example.org."""
    certificate: Path | None = None
    """PEM file of a TLS certificate (with --key), for https. Browsers on other devices need https to use a camera."""
    key: Path | None = None
    """PEM file of the certificate's private key."""
    weights: Path | None = None
    """Checkpoint of another network. Default: the network in the package."""
    body_dir: Path | None = None
    """Folder of the licensed SMPL or MANO files, for networks that predict them."""
    code: Path | None = None
    """Python file that defines the network's own backbone or head, if it has one; see docs/research.md."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; auto uses a CUDA device if there is one."""
    gpu: int | None = None
    """Number of the CUDA device where the network runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named_device(self.device, self.gpu)
        if not 0 <= self.port < 65536:
            raise InputError(f"it must be between 0 and 65535, not {self.port}", argument="port")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise InputError("it must be at least 16 letters, digits, - or _", argument="token")
        if (self.certificate is None) != (self.key is None):
            given = "certificate" if self.key is None else "key"
            raise InputError("https needs a certificate and its key: give both", argument=given)


def run(options: ServeOptions) -> int:
    """Serve until Ctrl-C. Raise UserError if the server cannot start."""
    _require_extra()
    import uvicorn  # an extra, like the imports of the application

    from i2l_meshnet.serving.app import create_app
    from i2l_meshnet.serving.patience import ImpatientProtocol

    token = options.token or _token_of_environment()
    if token is None and not is_loopback(options.host):
        token = secrets.token_urlsafe(24)
    with closing(_listening(options.host, options.port)) as listener, _terminable(), _uploads_folder() as folder:
        secure = options.certificate is not None
        predictor = _load(options)
        queue = JobQueue(JobRunner(predictor, options), folder, options)
        names = (options.host, socket.gethostname(), *options.allow_host)
        config = uvicorn.Config(
            create_app(queue, options, names, token, secure),
            http=ImpatientProtocol,
            ws="none",
            log_level="warning",
            access_log=False,  # URLs may contain the token
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )

        class Server(uvicorn.Server):
            """Refuses new requests once it is stopping."""

            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                queue.stopping = True
                super().handle_exit(sig, frame)

        try:
            config.load()
        except OSError as error:  # SSLError is one
            raise InputError(
                f"cannot use {options.certificate} with {options.key}: {error.strerror or error}"
            ) from error
        print(f"serving on {_address(options.host, listener, token, secure)} (Ctrl-C stops it)", flush=True)
        Server(config).run(sockets=[listener])
    return 0


def _load(options: ServeOptions) -> MeshPredictor:
    run_code(options.code)
    detect = assets.find("detector") is not None
    if not detect:
        message(f"warning: {NO_DETECTOR}")
    return MeshPredictor.load(options.weights, named_device(options.device, options.gpu), options.body_dir, detect)


def _require_extra() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "python_multipart")):
        raise InputError("the server needs more packages; pip install 'i2l-meshnet[serve]'")


def _token_of_environment() -> str | None:
    token = os.environ.get(TOKEN_VARIABLE)
    if token and not _TOKEN.fullmatch(token):
        raise InputError(f"{TOKEN_VARIABLE} must be at least 16 letters, digits, - or _")
    return token or None


def _listening(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port in use is reported before anything is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"cannot listen on {host}: {error.strerror}", argument="host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another", argument="port"
        ) from error
    return listener


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside this context, `kill` and a closed terminal unwind like Ctrl-C, so that results are deleted."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def hang_up(number: int, _: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    handlers = {signal.SIGTERM: end}
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:  # nohup ignores it
        handlers[hangup] = hang_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _uploads_folder() -> Iterator[Path]:
    """A folder for uploads and results that only this user can read; it is removed when the server stops.

    Folders of this user's servers that were killed are removed first.
    """
    parent = Path(tempfile.gettempdir())
    if fcntl is not None:  # Without locks, the folder of a running server looks like that of a killed server.
        for leftover in parent.glob(f"{FOLDER_PREFIX}*"):
            with suppress(UserError), work_folder(leftover):  # TakenError: another server uses it.
                remove(leftover)
    folder = parent / f"{FOLDER_PREFIX}{secrets.token_hex(8)}"
    umask = os.umask(0o077)
    try:
        with work_folder(folder):
            try:
                yield folder
            finally:
                remove(folder)
    finally:
        os.umask(umask)


def _address(host: str, listener: socket.socket, token: str | None, secure: bool) -> str:
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    port = listener.getsockname()[1]
    return f"{'https' if secure else 'http'}://{shown}:{port}/{f'?token={token}' if token else ''}"
