"""Who asks, so that the engines can share their places fairly between callers.

A caller is an address together with the credential that it sends. Neither is verified here. The address alone would
make one caller of all who are behind the same proxy, and the credential alone one of all who send the same placeholder
where none is needed.
"""

from __future__ import annotations

from hashlib import blake2b

from starlette.datastructures import Headers
from starlette.types import Scope

CREDENTIALS = ("authorization", "x-moondream-auth")
"""Headers that hold a credential."""


def caller_of(scope: Scope) -> str:
    """A name for whoever sent a request: the same in every router process, and nothing that can be read back.

    It has no key, since all router replicas must give the same name. That is safe because the name goes only to the
    replicas of the model, with the image and the prompt, and is neither logged nor kept: whoever could see it sees more
    than it tells. The address is that of the connection: X-Forwarded-For could say anything, and uvicorn believes it
    only of this machine's own processes (``FORWARDED_ALLOW_IPS``).
    """
    headers = Headers(scope=scope)
    host, _port = scope.get("client") or ("", 0)
    name = blake2b(digest_size=16, person=b"caller")
    for part in (host, *(headers.get(header, "") for header in CREDENTIALS)):
        name.update(len(part).to_bytes(4, "big") + part.encode("utf-8", errors="surrogateescape"))
    return name.hexdigest()
