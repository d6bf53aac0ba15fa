"""The checks that requests to the view must pass before viser sees them."""

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from i2l_meshnet.request_checks import is_known_host, is_same_origin, is_token

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Door:
    """Answers only requests by this machine's name, from the view's own page, whose path starts with a secret.

    viser answers every WebSocket, so every page in the user's browser could connect to it. The secret is in the path
    because viser's page keeps it when it opens its WebSocket. A cookie would be sent to the host's other ports too.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        self.used = False
        """Whether a server was started with the checks."""

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Within, a server that the `websockets` library starts checks its requests: viser has no setting for it."""
        plain: Any = websockets.asyncio.server.serve

        def serve(*arguments: Any, process_request: Any = None, **options: Any) -> Any:
            self.used = True
            return plain(*arguments, process_request=self._checked(process_request), **options)

        websockets.asyncio.server.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = plain

    def _checked(self, answer: Callable[[ServerConnection, Request], Response | None]) -> Any:
        def check(connection: ServerConnection, request: Request) -> Response | None:
            headers = request.headers
            hosts = headers.get_all("Host")
            if len(hosts) != 1 or not is_known_host(hosts[0]):
                return connection.respond(HTTPStatus.MISDIRECTED_REQUEST, "this server is not called that\n")
            is_websocket = headers.get("Upgrade", "").lower() == "websocket"
            if is_websocket and not is_same_origin(hosts[0], headers.get("Origin"), headers.get("Sec-Fetch-Site")):
                return connection.respond(HTTPStatus.FORBIDDEN, "requests from other sites are refused\n")
            token, _, path = request.path.partition("?")[0].removeprefix("/").partition("/")
            if not is_token(token, self.token):
                return connection.respond(HTTPStatus.UNAUTHORIZED, "open the address that the command printed\n")
            response = answer(connection, dataclasses.replace(request, path=f"/{path}"))
            if response is not None:
                response.headers.update(HEADERS)
            return response

        return check
