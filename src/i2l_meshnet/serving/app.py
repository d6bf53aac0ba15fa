"""The HTTP application: the page, predictions, jobs with progress, result files."""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from i2l_meshnet.errors import FileError
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.serving.guard import Guard
from i2l_meshnet.serving.jobs import NO_SPACE, Job, JobQueue, Refusal, State, stopping
from i2l_meshnet.serving.limits import Limits
from i2l_meshnet.serving.runner import PredictRequest, require_readable, write_zip
from i2l_meshnet.serving.schema import About, Health, JobStatus, Options, PhotoAnswer, Problem

STATIC = Path(str(files("i2l_meshnet.serving") / "static"))
SWEEP_SECONDS = 1.0
_FORM_BYTES = 10_000
"""Maximum size of a form without its file: boundaries and headers."""
_POLL_SECONDS = 0.05
_CHECK_THREADS = 4
"""Maximum number of uploads that are checked at the same time."""

_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {"photo": {"type": "string", "format": "binary", "description": "the upload"}},
                }
            }
        },
    }
}


def _problems(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    known = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST, *statuses)
    return {int(status): {"model": Problem, "description": status.phrase} for status in known}


_UPLOAD_PROBLEMS = _problems(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
    HTTPStatus.INSUFFICIENT_STORAGE,
)
_GONE = _problems(HTTPStatus.NOT_FOUND)


def create_app(
    queue: JobQueue,
    limits: Limits,
    names: Collection[str] = (),
    token: str | None = None,
    secure: bool = False,
) -> ASGIApp:
    """The guarded application. names, token, secure: see `Guard`. It closes the queue when it stops."""
    uploads = _Uploads(queue, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(queue))
        try:
            yield
        finally:
            sweeping.cancel()
            uploads.close()
            await asyncio.to_thread(queue.close)

    app = FastAPI(
        title="I2L-MeshNet",
        description="3D human meshes from one photograph.",
        version=version("i2l-meshnet"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(FileError, _unwritable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.mount("/static", StaticFiles(directory=STATIC))
    for address, page in (("/", "index.html"), ("/docs", "api.html")):
        app.add_api_route(address, _page(STATIC / page), include_in_schema=False)
    _add_information(app, queue, limits)
    _add_predictions(app, queue, uploads)
    _add_jobs(app, queue)
    return Guard(app, names, token, secure)


def _add_information(app: FastAPI, queue: JobQueue, limits: Limits) -> None:
    @app.get("/health", responses=_problems())
    async def health() -> Health:
        """Whether the server is alive."""
        return Health(status="ok", waiting=queue.waiting())

    @app.get("/about", responses=_problems())
    async def about() -> About:
        """The server's limits."""
        return About(
            version=app.version,
            max_upload_bytes=limits.upload_bytes,
            max_pixels=limits.max_pixels,
            max_people=limits.max_people,
            max_clip_length=limits.max_clip_length,
            keep_seconds=limits.keep_seconds,
        )


def _add_predictions(app: FastAPI, queue: JobQueue, uploads: "_Uploads") -> None:
    @app.post(
        "/predict",
        response_model=PhotoAnswer,
        responses=_UPLOAD_PROBLEMS | {200: {"content": {"application/zip": {}}}},
        openapi_extra=_UPLOAD,
    )
    async def predict(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Predict the people of a photo. `Accept: application/zip` returns all files, and nothing is kept."""
        job = await uploads.accept(request, options, clips=False)
        try:
            while not (job.ended or job.dropped or queue.stopping or await request.is_disconnected()):
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            if job.ended is None:
                queue.drop(job)
        if job.state is not State.DONE:
            raise job.refusal or stopping()
        if "application/zip" in request.headers.get("accept", ""):
            return await _zip(job, BackgroundTask(queue.drop, job))
        return Response(job.answer, media_type="application/json")

    @app.post(
        "/jobs",
        status_code=HTTPStatus.ACCEPTED,
        response_model=JobStatus,
        responses=_UPLOAD_PROBLEMS,
        openapi_extra=_UPLOAD,
    )
    async def begin(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Accept a photo or a clip and return at once. Poll the job's state until it is done."""
        job = await uploads.accept(request, options, clips=True)
        return JSONResponse(_status(job, queue), HTTPStatus.ACCEPTED, {"Location": f"/jobs/{job.id}"})


def _add_jobs(app: FastAPI, queue: JobQueue) -> None:
    @app.get("/jobs/{identity}", response_model=JobStatus, responses=_GONE)
    async def state(identity: str) -> Response:
        """The state of a job, and its answer when it is done."""
        return JSONResponse(_status(_found(queue, identity), queue))

    @app.delete("/jobs/{identity}", status_code=HTTPStatus.NO_CONTENT, responses=_GONE)
    async def forget(identity: str) -> None:
        """Cancel a job, or delete its results."""
        queue.drop(_found(queue, identity))

    @app.get("/jobs/{identity}/results.zip", response_class=FileResponse, responses=_GONE)
    async def everything(identity: str) -> Response:
        """All files of a job that is done."""
        job = _found(queue, identity)
        if job.state is not State.DONE:
            raise Refusal(HTTPStatus.NOT_FOUND, "this job has no results yet")
        return await _zip(job)

    @app.get("/jobs/{identity}/files/{name}", response_class=FileResponse, responses=_GONE)
    async def file(identity: str, name: str) -> Response:
        """One file of a job that is done."""
        path = _found(queue, identity).files.get(name)
        if path is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "this job has no such file")
        return FileResponse(path, filename=name, content_disposition_type="inline")


async def _sweep(queue: JobQueue) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await asyncio.to_thread(queue.sweep)


def _page(path: Path) -> Any:
    async def page() -> FileResponse:
        return FileResponse(path)

    return page


def _found(queue: JobQueue, identity: str) -> Job:
    job = queue.find(identity)
    if job is None:
        raise Refusal(HTTPStatus.NOT_FOUND, "no such job; its results may have been deleted")
    return job


def _status(job: Job, queue: JobQueue) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "ahead": queue.position(job),
        "stage": job.stage,
        "share": job.share,
        "problem": {"detail": job.refusal.reason} if job.refusal else None,
        "answer": json.loads(job.answer) if job.answer else None,
    }


async def _zip(job: Job, after: BackgroundTask | None = None) -> Response:
    path = job.folder / "results.zip"
    await asyncio.to_thread(write_zip, list(job.files.values()), path)
    return FileResponse(path, media_type="application/zip", filename="results.zip", background=after)


class _Uploads:
    """Receives uploads, checks them and queues them as jobs."""

    def __init__(self, queue: JobQueue, limits: Limits) -> None:
        self._queue, self._limits = queue, limits
        # Checks have their own threads, so that a slow check delays no other work.
        self._checks = ThreadPoolExecutor(_CHECK_THREADS, thread_name_prefix="upload-check")

    async def accept(self, request: Request, options: Options, *, clips: bool) -> Job:
        """Receive and check an upload within `max_seconds`, and queue it as a job. Raise Refusal."""
        wanted = _predict_request(options, clips)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a multipart/form-data form with the file field 'photo'"
            )
        length = request.headers.get("content-length", "0")
        if length.isdecimal():
            self._require_size(int(length) - _FORM_BYTES)
        job = self._queue.enter(wanted)
        try:
            job.folder.mkdir(mode=0o700)
            async with asyncio.timeout(self._limits.max_seconds):
                await self._receive(request, job)
                await asyncio.get_running_loop().run_in_executor(self._checks, require_readable, job, self._limits)
        except BaseException as error:
            self._queue.drop(job)
            refusal = stopping() if self._queue.stopping else _upload_refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        self._queue.start(job)
        return job

    def close(self) -> None:
        """Stop checking."""
        self._checks.shutdown(wait=False, cancel_futures=True)

    async def _receive(self, request: Request, job: Job) -> None:
        """Write the form's file to `job.upload`. Never read more than the limit."""

        async def limited() -> AsyncGenerator[bytes, None]:
            total = 0
            async for chunk in request.stream():
                total += len(chunk)
                self._require_size(total - _FORM_BYTES)
                yield chunk

        try:
            form = await MultiPartParser(request.headers, limited(), max_files=1, max_fields=8).parse()
        except (LookupError, UnicodeError) as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the form names a character set that cannot be read") from error
        try:
            photo = form.get("photo")
            if not isinstance(photo, UploadFile):
                raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "the form has no file field 'photo'")
            self._require_size(photo.size or 0)
            await asyncio.to_thread(_store, photo, job.upload)
        finally:
            await form.close()

    def _require_size(self, size: int) -> None:
        if size > self._limits.upload_bytes:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the upload is larger than {self._limits.max_upload:g} MB"
            )


def _predict_request(options: Options, clips: bool) -> PredictRequest:
    if options.focal is not None and options.fov is not None:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "give either focal or fov, not both")
    camera = Intrinsics(focal=options.focal, field_of_view=options.fov)
    return PredictRequest(camera, options.score, tuple(dict.fromkeys(options.formats)), clips)


def _store(photo: UploadFile, path: Path) -> None:
    with open(path, "xb", opener=_private) as target:
        shutil.copyfileobj(photo.file, target)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _upload_refusal(error: BaseException) -> Refusal | None:
    """The error response for an exception; None for bugs, and for exceptions that are a Refusal already."""
    match error:
        case TimeoutError():
            return Refusal(HTTPStatus.REQUEST_TIMEOUT, "the upload took longer than this server allows")
        case MultiPartException():
            return Refusal(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {error.message}")
        case ClientDisconnect():
            return Refusal(HTTPStatus.BAD_REQUEST, "the upload was interrupted")
        case OSError() if error.errno in NO_SPACE:
            return Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "the server has no space left for uploads")
    return None


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
    return JSONResponse({"detail": error.reason}, error.status, headers)


async def _unwritable(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "the server could not write the results"}, HTTPStatus.INSUFFICIENT_STORAGE)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    parameter = ".".join(str(part) for part in first["loc"][1:])
    return JSONResponse({"detail": f"{parameter}: {first['msg']}"}, HTTPStatus.UNPROCESSABLE_ENTITY)
