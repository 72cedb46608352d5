"""What accounts refuse, and why. The router's table of errors says how each is answered."""

from __future__ import annotations

from typing import Self

from vlm.errors import InvalidRequest, VlmError

WRONG_KEY = "The API key is not one that is good here: it is unknown, has expired or was revoked."
"""Which of them is not said: the holder of a stolen key learns nothing."""


class NoKey(InvalidRequest):
    """The request brings no key, and this server asks for one."""


class WrongKey(InvalidRequest):
    """The key is unknown, has expired or was revoked; which of them is not said."""


class NotAllowed(InvalidRequest):
    """The key is good, and does not allow this."""


class ModelNotAllowed(NotAllowed):
    """The key is good, and does not allow this model or task."""


def model_not_allowed(model: str, param: str) -> ModelNotAllowed:
    """The error for a model that the key does not allow; ``param`` is the path of the field that names it."""
    return ModelNotAllowed(
        f"This key does not allow the model {model[:128]!r}. GET /v1/models lists those that it allows.", param
    )


class LimitReached(VlmError):
    """More than the key's limits allow a minute, or at the same time.

    ``retry_after_s`` are the seconds until it is worth trying again, and ``kind`` is what was too much, as "requests".
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        kind: str = "requests",
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, param, code)
        self.args = (message, param, code, kind, retry_after_s)
        self.kind = kind
        self.retry_after_s = retry_after_s

    def located(self, message: str, param: str | None) -> Self:
        """See :class:`~vlm.errors.VlmError`."""
        return type(self)(message, param, self.code, self.kind, self.retry_after_s)


class QuotaSpent(VlmError):
    """The credits of the account, or a budget of the key, do not cover the request. Trying again is pointless."""


class KeyReused(InvalidRequest):
    """The idempotency key was used for another request."""


class StillRunning(VlmError):
    """The same request, with the same idempotency key, is being answered, and has not been for as long as one waits."""


class NotFound(VlmError):
    """There is no account, key or organisation of this id, or the caller may not see it."""


class Conflict(InvalidRequest):
    """What is to be created is there already, or is used."""


class AccountsUnavailable(VlmError):
    """The database, or what counts the limits, does not answer."""


class AccountsError(Exception):
    """Accounts cannot work at all: a wrong URL, a database of another version. For whoever starts them, not clients."""
