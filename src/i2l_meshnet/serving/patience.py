"""Close slow connections: a few slow clients must not use all connections."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""Time limit for the first line and headers of a request."""
STALL_SECONDS = 60.0
"""Time limit for a client to read more of a response."""


class ImpatientProtocol(H11Protocol):
    """uvicorn's protocol with time limits. uvicorn waits forever for the rest of a request.

    The application limits the time for the body of a request and for the work on it.
    """

    _end: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (as uvicorn's)
        """A client connected: start its time limit."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Data arrived: the request is complete now, or its time limit continues."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """A response was sent: start the time limit of the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client does not read: start its time limit."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._keep_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client disconnected."""
        self._stop()
        self._keep_reading()
        super().connection_lost(exc)

    def _keep_reading(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._end is None:  # Also while closing: the client may never read the rest of the response.
            self._end = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
