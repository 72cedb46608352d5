"""Every error that this project raises on purpose, as one tree.

    VlmError
    ├── InvalidRequest          the request can never succeed as it stands
    │   ├── InvalidImage        the image cannot be read, or breaks a limit
    │   └── UnsupportedTask     the model does not offer the task
    ├── ModelNotFound           no such model is served here
    ├── ModelNotReady           the model is configured but cannot answer yet
    │   ├── DeploymentFailed    and will not before it is deployed again
    │   └── ReplicaLost         what was to answer has ended, and nothing of the answer had come
    ├── Overloaded              refused because there is no room for it now
    ├── DeadlineExceeded        the request took longer than its deadline allows
    ├── EngineFailure           the engine failed while it worked on the request
    │   ├── EngineClosed        it stops, or is broken, and takes no more requests
    │   ├── EngineLost          its process or its device ended while it worked on the request
    │   └── LostTooOften        several processes or devices ended while they worked on the request
    ├── CheckpointError         a checkpoint cannot be loaded
    └── ConfigError             a setting is unknown or has an impossible value

``router.asgi.errors`` gives each of them its HTTP status. Standard library only: an error pickles the same on every
side of a Ray handle.
"""

from __future__ import annotations

from typing import ClassVar, Self


class VlmError(Exception):
    """The root of all errors that this project raises on purpose.

    Args:
        message: One sentence for the client; never text of another library's exception.
        param: Path of the field at fault (``"sampling.top_p"``), or None.
        code: A machine-readable code of the HTTP contract (``"invalid_image"``), or None.

    Attributes:
        retryable: Whether another replica of the model may answer the same request, at once or in a moment.
        lost: Whether the process or the device that worked on the request has ended, perhaps because of it.
    """

    retryable: ClassVar[bool] = False
    lost: ClassVar[bool] = False

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param, code)  # the positional arguments are what pickle replays
        self.message = message
        self.param = param
        self.code = code

    def __str__(self) -> str:
        return self.message

    def located(self, message: str, param: str | None) -> Self:
        """The same error in the words of another side, which has other fields."""
        return type(self)(message, param, self.code)


class InvalidRequest(VlmError):
    """The request can never succeed as it stands."""


class InvalidImage(InvalidRequest):
    """The image cannot be read, or breaks a limit."""


class UnsupportedTask(InvalidRequest):
    """The model does not offer the task."""


class ModelNotFound(VlmError):
    """No such model is served here."""


class ModelNotReady(VlmError):
    """The model is configured but cannot answer yet."""


class DeploymentFailed(ModelNotReady):
    """The model's last deployment failed and no process answers for it: only another deployment helps."""


class ReplicaLost(ModelNotReady):
    """The process that was to answer has ended, before anything of the answer had come."""

    retryable = True
    lost = True


class Overloaded(VlmError):
    """Refused because there is no room for it now, or its caller holds a share of it; the client may try again.

    Attributes:
        retry_after_s: Whole seconds after which there may be room, at least 1; None where nobody knows.
    """

    retryable = True

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message, param, code)
        self.args = (message, param, code, retry_after_s)
        self.retry_after_s = retry_after_s

    def located(self, message: str, param: str | None) -> Self:
        """See :class:`VlmError`."""
        return type(self)(message, param, self.code, self.retry_after_s)


class DeadlineExceeded(VlmError):
    """The request took longer than its deadline allows."""


class EngineFailure(VlmError):
    """The engine failed while it worked on the request; the request itself may be fine."""


class EngineClosed(EngineFailure):
    """The engine stops, or its device or its decoding processes are broken: it takes no more requests."""

    retryable = True


class EngineLost(EngineFailure):
    """The process or the device that worked on the request has ended; the request may be the reason."""

    retryable = True
    lost = True


class LostTooOften(EngineFailure):
    """Several processes or devices ended while they worked on the request, so it is not sent to another one."""


class CheckpointError(VlmError):
    """A checkpoint folder or hub id cannot be loaded; the message says what to do."""


class ConfigError(VlmError):
    """A setting of the engine, a model or the router is unknown, missing or impossible; the message names it."""


def prompt_too_long(tokens: int, limit: int) -> InvalidRequest:
    """The error for a prompt that a model cannot hold, in the words that LiteLLM and LangChain look for.

    Args:
        tokens: Of the prompt, those of its image included where the limit includes them.
        limit: Number of tokens that the model reads and writes.
    """
    return InvalidRequest(
        f"This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} tokens. "
        "Please reduce the length of the messages.",
        "prompt",
        "context_length_exceeded",
    )
