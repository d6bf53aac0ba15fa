"""Connections that do not come to the point are closed: a few slow clients must not hold all places."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0
"""How long a request's first line and headers may take."""
STALL_SECONDS = 60.0
"""How long a client may leave an answer unread before it reads some more of it."""


class ImpatientProtocol(H11Protocol):
    """uvicorn's protocol, which by itself waits for ever for a request to be whole.

    How long the rest of a request and the work on it may take, the application decides.
    """

    _end: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (as uvicorn's)
        """A client is there: its time begins."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Something came: either a request is whole now, or its time goes on."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer was sent: the time of the next request begins."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client does not read: its time begins."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        self._keep_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
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
        elif self._end is None:  # if it is closing, too: the client may never read the last of its answer
            self._end = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
