"""A queue of jobs for one worker thread, and their results."""

import dataclasses
import errno
import secrets
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any

from i2l_meshnet.serving.limits import Limits

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors of a disk, a quota or a file size limit."""


class Refusal(Exception):
    """An error response: an HTTP status, one line for the user, and when to try again (seconds)."""

    def __init__(self, status: HTTPStatus, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class State(StrEnum):
    """The state of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(eq=False)
class Job:
    """An upload and its results. Only `JobQueue` and its work change it.

    folder: of the upload and the results. upload: path of the upload; its original name is not kept. request: options
    of the work. stage: the current step, for users. share: of the work that is done, 0 to 1. files: result files by
    name. answer: JSON. size: of the files, bytes. ended, deadline: times of the monotonic clock.
    """

    id: str
    folder: Path
    request: Any
    state: State = State.WAITING
    stage: str = "waiting"
    share: float = 0.0
    files: dict[str, Path] = dataclasses.field(default_factory=dict)
    answer: bytes = b""
    size: int = 0
    upload: Path = dataclasses.field(init=False)
    refusal: Refusal | None = None
    ended: float | None = None
    deadline: float = float("inf")
    dropped: bool = False

    def __post_init__(self) -> None:
        self.upload = self.folder / "upload"

    def report(self, stage: str, share: float) -> None:
        """Record the next step. Raise Refusal if the job was cancelled or takes too long."""
        if self.dropped:
            raise Refusal(HTTPStatus.GONE, "the job was cancelled")
        if time.monotonic() > self.deadline:
            raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "the work took longer than this server allows")
        self.stage, self.share = stage, share


class JobQueue:
    """Runs jobs one after the other in one thread, because the predictor is not thread-safe."""

    def __init__(self, work: Callable[[Job], None], folder: Path, limits: Limits) -> None:
        """work: runs a job, sets its `files` and `answer`, raises Refusal. folder: for the files of all jobs."""
        self._work, self._folder, self._limits = work, folder, limits
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predictor")
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._discarded: list[Job] = []
        self._closed = False
        self.stopping = False
        """Whether the server is stopping: waiting clients then get an error, so that they do not delay it."""

    def enter(self, request: Any) -> Job:
        """A new job. It counts as waiting until it ends or is dropped. Its folder is not created yet.

        Raises Refusal (503) if the queue is full.
        """
        with self._lock:
            if self._closed:
                raise stopping()
            if self._unfinished() >= self._limits.max_waiting:
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE, "the server is busy; try again in a moment", retry_after=10
                )
            job = Job(secrets.token_urlsafe(18), self._folder / secrets.token_hex(12), request)
            self._jobs[job.id] = job
        return job

    def start(self, job: Job) -> None:
        """Queue a job whose upload is complete. Raise Refusal (503) if the queue is closed."""
        with self._lock:
            if self._closed:
                raise stopping()
            self._pool.submit(self._run, job)

    def find(self, identity: str) -> Job | None:
        """The job with this id, or None."""
        return self._jobs.get(identity)

    def waiting(self) -> int:
        """Number of jobs that wait or run."""
        with self._lock:
            return self._unfinished()

    def position(self, job: Job) -> int:
        """Number of jobs before this one."""
        with self._lock:
            ahead = 0
            for other in self._jobs.values():
                if other is job:
                    break
                ahead += other.ended is None
            return ahead if job.state is State.WAITING else 0

    def drop(self, job: Job) -> None:
        """Remove a job. Its work stops at the next step; a later `sweep` deletes its files."""
        with self._lock:
            self._discard(job)

    def sweep(self) -> None:
        """Delete the files of dropped jobs, and drop results that are too old or too many.

        Files are deleted one sweep after their job is dropped, so that a response in progress is sent completely.
        """
        with self._lock:
            # A running job still writes to its folder.
            gone = [job for job in self._discarded if job.ended is not None or job.state is State.WAITING]
            self._discarded = [job for job in self._discarded if job not in gone]
            kept = [job for job in self._jobs.values() if job.ended is not None]
            oldest = time.monotonic() - self._limits.keep_seconds
            total = 0
            for number, job in enumerate(reversed(kept), 1):
                total += job.size
                too_many = number > self._limits.max_kept or total > self._limits.max_kept_size * 1e6
                if (job.ended or 0.0) <= oldest or too_many:
                    self._discard(job)
        for job in gone:
            shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop after the current step, and drop all jobs."""
        with self._lock:
            self._closed = True
            for job in list(self._jobs.values()):
                self._discard(job)
        self._pool.shutdown(cancel_futures=True)

    def _unfinished(self) -> int:
        return sum(job.ended is None for job in self._jobs.values())

    def _discard(self, job: Job) -> None:
        if self._jobs.pop(job.id, None) is None:
            return
        job.dropped = True
        self._discarded.append(job)

    def _run(self, job: Job) -> None:
        with self._lock:
            if job.dropped:
                return
            job.state, job.deadline = State.RUNNING, time.monotonic() + self._limits.max_seconds
        refusal = None
        try:
            self._work(job)
            job.size = sum(path.stat().st_size for path in job.files.values())
        except Refusal as error:
            # A copy: the traceback of the error itself would keep images in memory.
            refusal = Refusal(error.status, error.reason, error.retry_after)
        except MemoryError:
            refusal = Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "not enough memory for this upload")
        except Exception as error:  # A bug must not end the only worker thread.
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                refusal = Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "the server has no space left for results")
            else:
                traceback.print_exc()
                refusal = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the server's log")
        if refusal is not None:
            shutil.rmtree(job.folder, ignore_errors=True)
        with self._lock:
            job.refusal, job.state = refusal, State.DONE if refusal is None else State.FAILED
            job.ended = time.monotonic()


def stopping() -> Refusal:
    """The error response of a server that is stopping."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server is being stopped")
