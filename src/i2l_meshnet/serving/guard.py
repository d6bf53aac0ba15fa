"""Check every request: the host name, the origin and the token."""

import secrets
from collections.abc import Collection
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from i2l_meshnet.request_checks import is_known_host, is_same_origin, is_token

COOKIE = "i2l_meshnet_token"
OPEN_PATHS = ("/health", "/static/page.css")
"""Paths that need no token: the health check, and the style of the form for the token."""

SECURITY_HEADERS = {
    # Only files of this server run, and nothing can be sent elsewhere. The 3D viewer needs inline styles for its shadow
    # tree, WebAssembly for decoding, and blobs for textures.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self' blob: data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_TOKEN_FORM = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>I2L-MeshNet</title><link rel="stylesheet" href="/static/page.css">
<main class="token"><h1>I2L-MeshNet</h1>
<form><label for="token">Enter the access token. It was printed where the server was started.</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Continue</button></form></main></html>
"""


class Guard:
    """Checks the Host header, the origin and the token of requests, and adds security headers to every response."""

    def __init__(self, app: ASGIApp, names: Collection[str], token: str | None, secure: bool = False) -> None:
        """names: allowed host names besides localhost. token: the access token, or None. secure: served over HTTPS."""
        self._app, self._token, self._secure = app, token, secure
        self._session = secrets.token_urlsafe(24)
        """Value of the cookie until exit. It is not the token, because browsers send cookies to all ports of a host."""
        self._names = {name.lower().rstrip(".") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the application, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers["Cache-Control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            await send(message)

        refusal = self._refused(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refused(self, scope: Scope) -> Response | None:
        """The response to a request that is refused; None if it is allowed."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_known_host(hosts[0], self._names):
            return _problem(HTTPStatus.MISDIRECTED_REQUEST, "unknown host name: allow it on the server (allow_host)")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not is_same_origin(
            hosts[0], headers.get("origin"), headers.get("sec-fetch-site")
        ):
            return _problem(HTTPStatus.FORBIDDEN, "requests from other sites are refused")
        if self._token is None or scope["path"] in OPEN_PATHS or self._has_access(headers):
            return None
        if scope["path"] == "/" and scope["method"] == "GET":
            return self._enter(scope)
        refused = _problem(HTTPStatus.UNAUTHORIZED, "a token is required: Authorization: Bearer TOKEN")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused

    def _enter(self, scope: Scope) -> Response:
        """The response to the start page: with the token in the URL, a redirect that sets the cookie; else a form."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not self._is_token(given):
            return HTMLResponse(_TOKEN_FORM, HTTPStatus.UNAUTHORIZED)
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        response.set_cookie(COOKIE, self._session, httponly=True, samesite="lax", secure=self._secure)
        return response

    def _has_access(self, headers: Headers) -> bool:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(value.strip())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and is_token(cookie.value, self._session)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and is_token(given, self._token)


def _problem(status: HTTPStatus, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
