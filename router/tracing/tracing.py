"""The settings of traces as the router works with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.config import RouterConfig
from router.tracing.choice import Choice
from traces.exporter import Exporter, resource_of
from traces.span import Recorder
from traces.target import OFF, is_installed, what_is_missing
from vlm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tracing:
    """What the parts of the router that trace requests share.

    Attributes:
        recorder: Takes the spans of this process.
        target: Where the replicas are to send theirs (:mod:`traces.target`).
        choice: Which requests are recorded.
    """

    recorder: Recorder
    target: str
    choice: Choice


def check_installed(config: RouterConfig) -> None:
    """Raise ConfigError if spans are to be sent and this environment has nothing to send them with."""
    if not is_installed(config.traces):
        raise ConfigError(what_is_missing(config.traces), "traces")


def tracing_of(config: RouterConfig, identity: Callable[[], Mapping[str, str]]) -> Tracing | None:
    """What the settings ask for; None where traces are off.

    Args:
        config: The router's settings.
        identity: Says which replica of which application this process is.

    Raises:
        ConfigError: This environment has nothing to send spans with.
    """
    if config.traces == OFF:
        return None
    check_installed(config)
    choice = Choice(config.trace_share, config.trust_traceparent)
    return Tracing(Exporter(config.traces, resource_of(**identity())), config.traces, choice)
