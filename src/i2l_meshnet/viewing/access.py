"""Access checks of the view's server, made before viser sees a request."""

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


class AccessCheck:
    """Refuse requests for other host names, from other sites, or without the secret at the start of the path.

    viser accepts every WebSocket, so every page in the user's browser could connect to it. The secret is in the path
    because viser's page uses its own path for its WebSocket. A cookie would also be sent to other ports of the host.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        self.active = False
        """Whether a server was started with these checks."""

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Add the checks to a server that the `websockets` library starts in this context: viser has no hook for it."""
        plain: Any = websockets.asyncio.server.serve

        def serve(*arguments: Any, process_request: Any = None, **options: Any) -> Any:
            self.active = True
            return plain(*arguments, process_request=self._checked(process_request), **options)

        websockets.asyncio.server.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = plain

    def _checked(self, respond: Callable[[ServerConnection, Request], Response | None]) -> Any:
        def check(connection: ServerConnection, request: Request) -> Response | None:
            headers = request.headers
            hosts = headers.get_all("Host")
            if len(hosts) != 1 or not is_known_host(hosts[0]):
                return connection.respond(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name\n")
            is_websocket = headers.get("Upgrade", "").lower() == "websocket"
            if is_websocket and not is_same_origin(hosts[0], headers.get("Origin"), headers.get("Sec-Fetch-Site")):
                return connection.respond(HTTPStatus.FORBIDDEN, "requests from other sites are refused\n")
            token, _, path = request.path.partition("?")[0].removeprefix("/").partition("/")
            if not is_token(token, self.token):
                return connection.respond(HTTPStatus.UNAUTHORIZED, "open the address that the command printed\n")
            response = respond(connection, dataclasses.replace(request, path=f"/{path}"))
            if response is not None:
                response.headers.update(HEADERS)
            return response

        return check
