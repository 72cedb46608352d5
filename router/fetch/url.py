"""The one parser of image URLs.

It takes a URL apart, and everything behind it (the check of the host, the name that is resolved, the connection, the
Host header, the request line) uses the parts. No other parser sees the text, so that no two can disagree about which
host it means. What a browser would repair (blanks, backslashes, unusual spellings of IPv4) is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote, urljoin

from vlm.errors import InvalidImage

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_CHARS = 8192
"""Longest URL in characters. Signed URLs of object stores have up to about 2,000."""
MAX_HOST_CHARS = 253
"""Longest name that DNS can hold."""

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:(?P<name>[a-z0-9_.-]+)|\[(?P<ipv6>[0-9a-f:.]+)\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[^?#]*)?"
    r"(?:\?(?P<query>[^#]*))?"
    r"(?:#.*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PATH_SAFE = "/%:@!$&'()*+,;=~"  # left as written, because signatures of URLs cover them
_QUERY_SAFE = _PATH_SAFE + "?[]"


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """The parts of an ``http`` or ``https`` URL.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name in lower case, or an address in its canonical spelling, without brackets.
        address: The host, if it is an address.
        port: TCP port.
        target: Path and query as they go into the request line: ASCII, beginning with a slash.
    """

    scheme: str
    host: str
    address: IPv4Address | IPv6Address | None
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(text: str) -> ImageUrl:
    """The parts of an image's URL.

    Raises:
        InvalidImage: It is not an ``http`` or ``https`` URL in its ordinary spelling.
    """
    if len(text) > MAX_URL_CHARS:
        raise _invalid(f"has more than {MAX_URL_CHARS} characters")
    if not _is_plain(text):
        raise _invalid("contains a blank, a backslash or an invisible character; write it as %20, %5C and so on")
    match = _URL.fullmatch(text)
    if match is None:
        raise _invalid(
            "must read http://host/path or https://host/path, without a user name, and with the host in ASCII "
            "(xn--... for other letters)"
        )
    scheme = match["scheme"].lower()
    port = int(match["port"] or DEFAULT_PORTS[scheme])
    if port > 65_535:
        raise _invalid("has a port that does not exist")
    host, address = _named(match["name"].lower()) if match["name"] else _ipv6(match["ipv6"])
    return ImageUrl(scheme, host, address, port, _target(match["path"], match["query"]))


def redirected(url: ImageUrl, location: bytes) -> ImageUrl:
    """The URL that a redirect leads to: ``location``, which may be relative to ``url``.

    Raises:
        InvalidImage: It is not a URL that :func:`parse_url` takes, or it leads from ``https`` to ``http``.
    """
    try:
        text = location.decode("utf-8")
        if not _is_plain(text):  # urljoin would remove some of what is not
            raise _misled()
        new = parse_url(urljoin(f"{url.scheme}://{url.authority}{url.target}", text))
    except (ValueError, InvalidImage) as error:  # ValueError of the bytes, or of brackets that do not match
        raise _misled() from error
    if url.scheme == "https" and new.scheme == "http":
        raise _misled()
    return new


def _is_plain(text: str) -> bool:
    """Whether nothing in ``text`` is blank or invisible, or read as a slash by some parsers only."""
    return text.isprintable() and " " not in text and "\\" not in text


def _named(name: str) -> tuple[str, IPv4Address | None]:
    """A host that is written as a name; one whose last label is a number must be an address in its only spelling."""
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            address = IPv4Address(name)
        except AddressValueError as error:
            raise _invalid("has an IPv4 address in an unusual spelling; write four decimal numbers") from error
        return str(address), address
    if len(name) > MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise _invalid("has a host that is not a valid name")
    return name, None


def _ipv6(text: str) -> tuple[str, IPv6Address]:
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise _invalid("has an IPv6 address that is not valid") from error
    return str(address), address


def _target(path: str | None, query: str | None) -> str:
    encoded = quote(path or "/", _PATH_SAFE)
    return encoded if query is None else f"{encoded}?{quote(query, _QUERY_SAFE)}"


def _invalid(fault: str) -> InvalidImage:
    return InvalidImage(f"The image's URL {fault}.", code="invalid_image_url")


def _misled() -> InvalidImage:
    return InvalidImage("The image's URL redirects to an address that is not allowed.", code="invalid_image_url")
