"""Checks of HTTP requests to a server on this machine: Host, Origin and token. They work with every framework."""

import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_known_host(host: str, names: Collection[str] = ()) -> bool:
    """Whether a Host header names localhost, an IP address or one of `names` (lower case, no dot at the end).

    After DNS rebinding, an attacker's page sends the attacker's name as Host. IP addresses cannot be rebound.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name.rstrip(".") in {"localhost", *names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_same_origin(host: str, origin: str | None, fetch_site: str | None) -> bool:
    """Whether the Origin and Sec-Fetch-Site headers are from the server's own page, or missing as in a program."""
    if origin is not None and _authority(origin) != host.lower():
        return False
    return fetch_site in (None, "same-origin", "none")


def _authority(origin: str) -> str | None:
    """Host and port of an origin, None if it has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def is_token(given: str, token: str) -> bool:
    """Compare a token with the right token, in constant time."""
    return hmac.compare_digest(given.encode(), token.encode())
