"""Pictures by https address, for services that switch it on: the guard against being made to fetch from inside.

A name is resolved once and every address it has must be public, also after unwrapping what carries an IPv4 address
inside IPv6; the connection goes to that very address, with the name for the certificate. Each redirect is checked
anew. What the server calls its content is not looked at: the picture's own door decides.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, urljoin, urlsplit

from zoomiqa.errors import ImageTooLarge

from .errors import UploadRefused

MOST_REDIRECTS = 5
SECONDS = 5.0
"""For all of it."""

_PIECE = 2**16
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "::/96",
        "64:ff9b:1::/48",
        "100::/63",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/9",
        "ff00::/8",
    ]
)
"""IANA's registries of special addresses (RFC 6890 and after), beside Python's own list, which differs by version. 6to4
and Teredo, which carry other addresses, are refused as a whole."""

_ISATAP = (0x00005EFE, 0x02005EFE)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


def is_public(address: str) -> bool:
    """Whether an IP address, with whatever it carries inside, is one of the public internet."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    return all(_is_plain_public(item) for item in _unwrapped(found))


def _is_plain_public(address: Address) -> bool:
    return address.is_global and not any(
        address in network for network in _NOT_PUBLIC if network.version == address.version
    )


def _unwrapped(address: Address) -> list[Address]:
    """The addresses that a connection to this one may reach: an IPv4 address inside it (mapped, NAT64), or also one
    (ISATAP).
    """
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped is not None or address in _NAT64:
        return [low]
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return [address, low]
    return [address]


def fetch(
    url: str,
    limit_bytes: int,
    *,
    resolve: Resolve | None = None,
    connect: Callable[..., socket.socket] = socket.create_connection,
) -> tuple[str, bytes]:
    """The last part of the address's path, and the bytes at it.

    Args:
        url: https only.
        limit_bytes: Most bytes that are read.
        resolve: From a name and port to addresses; the system's by default.
        connect: Opens a connection to (address, port).

    Raises:
        UploadRefused: not https, not public, too many redirects, too slow, or no answer of 200.
        ImageTooLarge: more bytes than `limit_bytes`.
    """
    deadline = time.monotonic() + SECONDS
    for _ in range(MOST_REDIRECTS + 1):
        parts = _checked(url)
        address = _public_address(parts, resolve or _resolve)
        status, headers, body = _get(parts, address, limit_bytes, deadline, connect)
        if status in (301, 302, 303, 307, 308) and headers.get("location"):
            url = urljoin(url, headers["location"])
            continue
        if status != 200:
            raise UploadRefused("the address gives no picture", f"status {status}", "open it in a browser to see")
        return parts.path.rsplit("/", 1)[-1] or "picture", body
    raise UploadRefused(f"more than {MOST_REDIRECTS} redirects", None, "give the final address")


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_good = (
            parts.scheme == "https" and bool(parts.hostname) and parts.username is None and (parts.port or 443) > 0
        )
    except ValueError:
        is_good = False
    if not is_good or any(ord(sign) <= 32 or ord(sign) == 127 for sign in url):
        raise UploadRefused("only plain https addresses are taken", None, "upload the picture instead")
    return parts


def _public_address(parts: SplitResult, resolve: Resolve) -> str:
    assert parts.hostname is not None  # noqa: S101 - `_checked` saw to it
    try:
        addresses = list(resolve(parts.hostname, parts.port or 443))
    except (OSError, UnicodeError):
        addresses = []
    if not addresses or not all(is_public(address) for address in addresses):
        raise UploadRefused("the address is not one of the public internet", None, "upload the picture instead")
    return addresses[0]


def _resolve(host: str, port: int) -> Sequence[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _get(
    parts: SplitResult, address: str, limit_bytes: int, deadline: float, connect: Callable[..., socket.socket]
) -> tuple[int, dict[str, str], bytes]:
    """One request to exactly that address. The body of anything but 200 is not read."""
    assert parts.hostname is not None  # noqa: S101 - `_checked` saw to it
    connection = http.client.HTTPSConnection(parts.hostname, parts.port or 443)
    try:
        plain = connect((address, parts.port or 443), timeout=_left(deadline))
        connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if answer.status != 200:
            return answer.status, headers, b""
        body = bytearray()
        while piece := answer.read1(_PIECE):
            body += piece
            if len(body) > limit_bytes:
                raise ImageTooLarge(
                    f"the address gives more than the limit of {limit_bytes / 2**20:.4g} MiB",
                    None,
                    "give a smaller one",
                )
            connection.sock.settimeout(_left(deadline))
        return 200, headers, bytes(body)
    except (OSError, http.client.HTTPException) as error:
        raise UploadRefused("the address cannot be fetched", None, "upload the picture instead") from error
    finally:
        connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise UploadRefused(f"the address took longer than {SECONDS:g} s", None, "upload the picture instead")
    return left
