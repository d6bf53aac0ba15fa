"""One worker thread, the jobs that wait for it, and the results that are kept for a while."""

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
    """A request that is not answered: an HTTP status, one line for the user, and when to try again (seconds)."""

    def __init__(self, status: HTTPStatus, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class State(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(eq=False)
class Job:
    """One upload on its way to results. Only `JobQueue` and its work change it.

    folder: the upload before, the results after. upload: where it is put; its own name is never kept. request: what
    was asked for. stage: what is being done, for people to read. share: of the work that is done, 0 to 1. files: of
    the results, by name. answer: JSON. size: of the files, bytes. ended, deadline: on the monotonic clock.
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
        """Tells what is done next. Raises Refusal if nobody waits for it any more or it takes too long."""
        if self.dropped:
            raise Refusal(HTTPStatus.GONE, "the job was cancelled")
        if time.monotonic() > self.deadline:
            raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "the work took longer than this server allows")
        self.stage, self.share = stage, share


class JobQueue:
    """Runs jobs one after the other in one thread, because the predictor is not re-entrant."""

    def __init__(self, work: Callable[[Job], None], folder: Path, limits: Limits) -> None:
        """work: does a job, sets its `files` and `answer`, raises Refusal. folder: where jobs keep their files."""
        self._work, self._folder, self._limits = work, folder, limits
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predictor")
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._discarded: list[Job] = []
        self._closed = False
        self.stopping = False
        """Whether the server is about to end: visitors who wait are sent away, so that nobody holds it up."""

    def enter(self, request: Any) -> Job:
        """A new job, which holds a place in the queue until it ends or is dropped; its folder is not made yet.

        Raises Refusal (503) if there is no room.
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
        """Puts a job whose upload is there into the queue. Raises Refusal (503) if that is closed."""
        with self._lock:
            if self._closed:
                raise stopping()
            self._pool.submit(self._run, job)

    def find(self, identity: str) -> Job | None:
        """The job of this id, if it is still kept."""
        return self._jobs.get(identity)

    def waiting(self) -> int:
        """How many jobs wait or run."""
        with self._lock:
            return self._unfinished()

    def position(self, job: Job) -> int:
        """How many jobs come before this one."""
        with self._lock:
            ahead = 0
            for other in self._jobs.values():
                if other is job:
                    break
                ahead += other.ended is None
            return ahead if job.state is State.WAITING else 0

    def drop(self, job: Job) -> None:
        """Forgets a job; its files go with the next `sweep`, work on it stops at its next step."""
        with self._lock:
            self._discard(job)

    def sweep(self) -> None:
        """Deletes what was dropped before the last sweep, and forgets results whose time is over.

        Files go one sweep later than their job, so that an answer which is just being sent is sent whole.
        """
        with self._lock:
            # A job that is being worked on still writes to its folder.
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
        """Stops after the step that is being done, and drops all jobs."""
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
            # A copy: the error itself keeps alive all that its traceback knows, pictures among it.
            refusal = Refusal(error.status, error.reason, error.retry_after)
        except MemoryError:
            refusal = Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "not enough memory for this picture")
        except OSError as error:
            refusal = _disk_refusal(error)
        except Exception:  # a fault of ours must not end the thread that everybody waits for
            traceback.print_exc()
            refusal = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the server's log tells more")
        if refusal is not None:
            shutil.rmtree(job.folder, ignore_errors=True)
        with self._lock:
            job.refusal, job.state = refusal, State.DONE if refusal is None else State.FAILED
            job.ended = time.monotonic()


def _disk_refusal(error: OSError) -> Refusal:
    if error.errno in NO_SPACE:
        return Refusal(HTTPStatus.INSUFFICIENT_STORAGE, "the server has no space left for results")
    traceback.print_exc()
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the server's log tells more")


def stopping() -> Refusal:
    """The answer to visitors of a server that ends."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server is being stopped")
