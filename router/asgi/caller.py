"""Who asks, so that the engines can share their places fairly between callers, and that each finds its own files.

A caller is a key that is known here (:mod:`router.accounts`), or else an address together with the credential that it
sends, neither of which is verified. The address alone would make one caller of all who are behind the same proxy, and
the credential alone one of all who send the same placeholder where none is needed. Files have an owner, which is not
the same: decision 7 says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from starlette.datastructures import Headers
from starlette.types import Scope

from router.asgi.billing import access_of

CREDENTIALS = ("authorization", "x-moondream-auth")
"""Headers that hold a credential."""

MIN_KEY_CHARS = 24
MIN_KEY_KINDS = 10
"""Different characters of a key. What is shorter or has fewer can be guessed, as placeholders can ("none",
"sk-no-key-required", "sk-xxxxxxxxxxxxxxxxxxxxxxxx"); what OpenAI and gateways hand out is far longer."""


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom a file belongs.

    Attributes:
        name: The same for the same owner in every router process.
        has_key: Whether a key makes the owner: a credential that nobody else can guess.
    """

    name: str
    has_key: bool


def owner_of(scope: Scope, caller: str | None = None) -> Owner:
    """The owner of what a request uploads: its key, wherever it comes from, and without one its ``caller``.

    Of a key that is known here, the owner is its id: it stays when the secret is replaced.
    """
    if (access := access_of(scope)) is not None:
        return Owner(access.caller, has_key=True)
    credential = _credential(Headers(scope=scope))
    has_key = len(credential) >= MIN_KEY_CHARS and len(set(credential)) >= MIN_KEY_KINDS
    if not has_key:
        return Owner(caller or caller_of(scope), has_key)
    name = blake2b(credential.encode("utf-8", errors="surrogateescape"), digest_size=16, person=b"key").hexdigest()
    return Owner(name, has_key)


def _credential(headers: Headers) -> str:
    """The credential alone, so that it is the same in either header.

    Of other schemes there is none: that of Basic is as long as its Base64, and no harder to guess than its password.
    """
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return scheme if scheme and not token else headers.get("x-moondream-auth", "").strip()


def caller_of(scope: Scope) -> str:
    """A name for whoever sent a request: the same in every router process, and nothing that can be read back.

    A key that is known here is named by its id. Else the name is a hash without a key, since all router replicas must
    give the same one. That is safe because the name goes only to the replicas of the model, with the image and the
    prompt, and is neither logged nor kept: whoever could see it sees more than it tells. The address is that of the
    connection: X-Forwarded-For could say anything, and uvicorn believes it only of this machine's own processes
    (``FORWARDED_ALLOW_IPS``).
    """
    if (access := access_of(scope)) is not None:
        return access.caller
    headers = Headers(scope=scope)
    host, _port = scope.get("client") or ("", 0)
    name = blake2b(digest_size=16, person=b"caller")
    for part in (host, *(headers.get(header, "") for header in CREDENTIALS)):
        name.update(len(part).to_bytes(4, "big") + part.encode("utf-8", errors="surrogateescape"))
    return name.hexdigest()
