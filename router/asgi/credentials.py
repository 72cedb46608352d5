"""The key that a request brings: where it stands in the headers, and which requests need none.

Whether a key is good is not known here, so that the front can refuse what brings none before it reads a body.
"""

from __future__ import annotations

from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import Scope

from accounts.errors import WRONG_KEY, NoKey, WrongKey
from accounts.keys import looks_like_key

OPEN_PATHS = frozenset(("/health", "/healthz", "/readyz", "/openapi.json", "/v1/schemas/grounding.json"))
"""What anybody may ask, so that load balancers, scripts and generators of clients need no key."""

NO_KEY = (
    "The request has no API key. Send it in the header Authorization as Bearer and the key (or in X-Moondream-Auth); "
    "whoever runs this server hands keys out."
)


def route_path(scope: Scope) -> str:
    """The path of the route that answers a request.

    It is read as routes read it: behind the prefix that the application has (``root_path``), and without a line break
    at its end, which Starlette's routes overlook. Else a path that looks like no route's would lead to one.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return (path[len(root) :] if path.startswith(f"{root}/") else path).removesuffix("\n")


def is_open(scope: Scope) -> bool:
    """Whether a request needs no key."""
    return route_path(scope) in OPEN_PATHS or scope["method"] == "OPTIONS"


def secret_of(scope: Scope) -> str:
    """The key of a request, which has the form of one.

    Raises:
        NoKey: There is none.
        WrongKey: What is there cannot be a key, or there are several.
    """
    given = {one for one in _given(Headers(scope=scope)) if one}
    if not given:
        raise NoKey(NO_KEY)
    if len(given) > 1:
        raise WrongKey("The request has several API keys; send one.")
    [secret] = given
    if not looks_like_key(secret):
        raise WrongKey(WRONG_KEY)
    return secret


def _given(headers: Headers) -> Iterator[str]:
    """What stands where a key may. An Authorization of another scheme than Bearer is for somebody else."""
    for value in headers.getlist("authorization"):
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            yield token.strip()
    yield from (value.strip() for value in headers.getlist("x-moondream-auth"))
