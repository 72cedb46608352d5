"""What a request is refused by before it is read: the name of its model, as it stands at an end of the body.

Under overload most requests are refused, so a refusal must cost far less than an answer, whose CPU time it takes. Read
in full, a request to be refused costs half a millisecond of a core; by its model's name alone, a tenth of that.

What is found is a guess, which only ever refuses: it must name a model that has no room for even the smallest request
of this caller. Where nothing is found, and for every request that may be let in, the format reads the body and asks
again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from router.admission.rule import Admission, Asked
from router.asgi.errors import TABLE, Forbidden, error_response
from router.asgi.foreign import refuse_foreign
from router.asgi.metering import Meter, Tally
from router.asgi.middleware import REQUEST_ID_KEY, Exchange
from router.config import RouterConfig
from vlm.errors import Overloaded

HEAD_BYTES = 512
TAIL_BYTES = 2048
"""How much is looked at of a body's two ends: fields that clients send beside the messages take less."""
NAMES = 256
"""Spellings of models that are remembered: clients may write what they like."""

OVERLOADED = TABLE[Overloaded].status

_MODEL = re.compile(rb'"model"\s{0,8}:\s{0,8}"([^"\\]{1,256})"')
"""Within a string, quotes have a backslash before them: this never begins or ends in one."""
_OTHERS = b'"models"'


class Gate:
    """In front of a router's endpoints for models. Used in one event loop."""

    def __init__(
        self,
        admission: Admission,
        canonical: Callable[[str], str],
        meter: Meter,
        paths: Collection[str],
        config: RouterConfig,
        *,
        caller: Callable[[Scope, str], str | None],
    ) -> None:
        """In front of the endpoints at ``paths``.

        Args:
            admission: By what they let requests in.
            canonical: The model that a name in a request stands for.
            meter: Learns of each refusal, as of every other end of a request.
            paths: Where the endpoints are.
            config: The router's settings.
            caller: Who sends a request for a model; None if that is not known without asking, or the model is not for
                that caller, so that the request has to be read.
        """
        self._admission = admission
        self._canonical = lru_cache(maxsize=NAMES)(canonical)
        self._meter = meter
        self._paths = frozenset(paths)
        self._config = config
        self._caller = caller
        self._are_foreign = lru_cache(maxsize=NAMES)(self._refused_by_front)

    def _refused_by_front(self, hosts: tuple[bytes, ...], server: str) -> bool:
        headers = [(b"host", host) for host in hosts]
        try:
            refuse_foreign({"headers": headers, "server": (server,), "scheme": ""}, self._config.allowed_hosts)
        except Forbidden:
            return True
        return False

    def may_refuse(self, scope: Scope) -> bool:
        """Whether it is worth looking at the body of a request."""
        return self._admission.refuses and scope["path"] in self._paths and scope["method"] == "POST"

    def refusal(self, scope: Scope, name: str) -> bytes | None:
        """The whole answer to a request for the model of this name; None if the request has to be read.

        Whoever asks writes it as it is: the request has ended.
        """
        model = self._canonical(name)
        caller = self._caller(scope, model)
        if caller is None:
            return None
        refused = self._admission.refusal(Asked(model, caller, self._config.request_timeout_s))
        if refused is None:
            return None
        hosts = tuple(value for name, value in scope["headers"] if name == b"host")
        if self._are_foreign(hosts, (scope.get("server") or ("",))[0]):
            return None  # the front says it
        return self._answer(scope, model, refused)

    def _answer(self, scope: Scope, model: str, error: Overloaded) -> bytes:
        exchange = Exchange(scope)
        tally = Tally(scope[REQUEST_ID_KEY])
        tally.asks(model)
        tally.failed(error)
        self._meter(scope, tally.record())
        head, body = _written(error.message, error.code, error.retry_after_s)
        ids = b"".join(b"%b: %b\r\n" % pair for pair in exchange.raw_headers(OVERLOADED))
        exchange.log()
        return b"%b%b\r\n%b" % (head, ids, body)


@lru_cache(maxsize=NAMES)
def _written(message: str, code: str | None, retry_after_s: int | None) -> tuple[bytes, bytes]:
    """Head and body of what is answered to such an error, of which many in a row are alike."""
    response = error_response(Overloaded(message, code=code, retry_after_s=retry_after_s))
    lines = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers)
    return STATUS_LINE[response.status_code] + lines, bytes(response.body)


def named(body: bytes | bytearray, *, whole: bool) -> str | None:
    """The name of a model in an object that has begun to arrive, or has arrived as a ``whole``.

    None where others are named that may answer in its place: as far as can be seen, since a list of them that stands
    behind an image has not arrived when the model before it is found.
    """
    if _OTHERS in body[:HEAD_BYTES] or (whole and _OTHERS in body[-TAIL_BYTES:]):
        return None
    found = _named_at_head(body) or (_named_at_tail(body) if whole else None)
    return None if found is None else found[1].decode("utf-8", errors="replace")


def _named_at_head(body: bytes | bytearray) -> re.Match[bytes] | None:
    """Before any field that holds objects or lists."""
    found = _MODEL.search(body, 0, HEAD_BYTES)
    if found is None or body.count(b"{", 0, found.start()) != 1 or body.count(b"[", 0, found.start()):
        return None
    return found


def _named_at_tail(body: bytes | bytearray) -> re.Match[bytes] | None:
    """Behind the last field that holds objects or lists."""
    found = _MODEL.search(body, max(0, len(body) - TAIL_BYTES))
    if found is None or body.count(b"}", found.end()) != 1 or body.count(b"]", found.end()):
        return None
    return found
