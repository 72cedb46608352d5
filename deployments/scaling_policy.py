"""The rule of ``deployments.autoscaling`` as a policy of Ray Serve, and what replicas report for it.

A Serve config names it in the ``autoscaling_config`` of a deployment::

    policy:
      policy_function: deployments.scaling_policy:WaitingWork
      policy_kwargs: { target_queue_s: 0.5 }

Serve asks the policy ten times a second, in its controller, with what the replicas and the handles have reported since
``look_back_period_s``. It then applies its own bounds and delays, which therefore have to be 0 (:func:`mistakes`), and
it does not ask while no replica runs: then the first request that waits starts one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from deployments.autoscaling import Past, ScalingConfig, Seen, decide
from vlm.errors import ConfigError

if TYPE_CHECKING:
    from vlm.engine.config import EngineStats

log = logging.getLogger("ray.serve")  # the logger that Serve sets up in its controller

POLICY = "deployments.scaling_policy:WaitingWork"

HELD, SLOTS, QUEUE_S, ASKED = "places_held", "slots", "queue_s", "requests_asked"
"""What a replica reports: places that its requests hold; those that it works on at once; seconds that a new request
would wait; and requests since its start."""

LONGEST_REPORT_S = 5.0
"""Replicas that report more rarely get help too late; ten seconds are Serve's own choice."""
LONGEST_LOOK_S = 10.0
"""The same where the load of half a minute ago still counts."""


NUMBERS = (
    "upscale_delay_s", "downscale_delay_s", "upscaling_factor", "downscaling_factor", "metrics_interval_s",
    "look_back_period_s",
)  # fmt: skip
"""Settings of an ``autoscaling_config`` that this policy depends on."""


def report(stats: EngineStats, asked: int) -> dict[str, float]:
    """What a replica tells Serve of its engine; ``asked`` is the number of its requests so far."""
    return {HELD: stats.used_places, SLOTS: stats.max_batch, QUEUE_S: stats.queue_s, ASKED: asked}


class WaitingWork:
    """Serve makes one for each deployment, and again when its config changes."""

    def __init__(self, **settings: Any) -> None:
        """``settings`` are those of :class:`~deployments.autoscaling.ScalingConfig`.

        Wrong ones are a line in the controller's log, and all are the default then: an exception here would keep the
        controller from looking after any application. ``deployments.check`` refuses them before.
        """
        self._config = _read(settings)
        self._past = Past()
        self._asked = -1.0
        self._failing = False

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """How many replicas there should be; Serve keeps no state for this policy.

        As many as there are meant to be where that cannot be said: what is raised here would keep the controller from
        looking after any application.
        """
        try:
            replicas, self._past = decide(self._config, self._seen(context), self._past)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if not self._failing:
                log.exception("%s keeps %d replicas: %s", POLICY, context.target_num_replicas, type(error).__name__)
            self._failing = True
            return context.target_num_replicas, {}
        self._failing = False
        return replicas, {}

    def _seen(self, context: Any) -> Seen:
        series = {name: list(found.values()) for name, found in (context.raw_metrics or {}).items()}
        slots = _means(series.get(SLOTS, ()))
        held = _means(series.get(HELD, ()))
        queued = float(context.total_queued_requests or 0)
        busy = sum(min(1.0, holds / has) for holds, has in zip(held, slots, strict=False) if has)
        silent = max(0, context.current_num_replicas - len(slots))
        asked = sum(_last(one) for one in series.get(ASKED, ()))
        changed, self._asked = asked != self._asked, asked
        return Seen(
            context.current_time,
            context.current_num_replicas,
            context.target_num_replicas,
            context.capacity_adjusted_min_replicas,
            context.capacity_adjusted_max_replicas,
            # Those that have not reported yet, or cannot, are no reason to change anything.
            busy + silent * self._config.occupancy + (queued / fmean(slots) if slots else queued),
            sum(_means(series.get(QUEUE_S, ()))),
            sum(map(_slope, series.get(QUEUE_S, ()))),
            changed or silent > 0 or queued > 0 or any(held),
        )


def _read(settings: Mapping[str, Any]) -> ScalingConfig:
    try:
        return ScalingConfig.from_args(settings)
    except ConfigError as error:
        wrong = error.message
    log.error("the defaults of %s are used, because its policy_kwargs are wrong: %s", POLICY, wrong)
    return ScalingConfig()


def _means(series: Iterable[Any]) -> list[float]:
    """The mean of each series of points, which are as far apart as a replica's reports."""
    return [fmean(point.value for point in points) for points in series if points]


def _slope(points: Any) -> float:
    """By how much the value changes in a second, from the first point to the last."""
    seconds = float(points[-1].timestamp - points[0].timestamp) if points else 0.0
    return float(points[-1].value - points[0].value) / seconds if seconds > 0 else 0.0


def _last(points: Any) -> float:
    return float(points[-1].value) if points else 0.0


def mistakes(scaling: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, message) of what in an ``autoscaling_config`` with this policy keeps the policy from working.

    Whether its numbers are numbers is for Ray to say.
    """
    policy = scaling.get("policy")
    if not isinstance(policy, Mapping) or policy.get("policy_function") != POLICY:
        return
    try:
        ScalingConfig.from_args(policy.get("policy_kwargs") or {})
    except ConfigError as error:
        yield "policy.policy_kwargs", error.message
    if not all(isinstance(scaling[key], int | float) for key in NUMBERS if key in scaling):
        return
    for key, default in {"upscale_delay_s": 30.0, "downscale_delay_s": 600.0}.items():
        if scaling.get(key, default) != 0:
            yield key, f"must be 0: Serve would wait so long after each decision of {POLICY}, which has delays itself."
    if scaling.get("upscaling_factor", 1.0) != 1 or scaling.get("downscaling_factor", 1.0) != 1:
        yield "upscaling_factor", f"must be left out, as downscaling_factor: Serve would change what {POLICY} decides."
    interval, period = scaling.get("metrics_interval_s", 10.0), scaling.get("look_back_period_s", 30.0)
    if interval > LONGEST_REPORT_S:
        yield (
            "metrics_interval_s",
            f"must be at most {LONGEST_REPORT_S:.0f}, and is 10 where it is left out: so often replicas report.",
        )
    if not interval < period <= LONGEST_LOOK_S:
        yield (
            "look_back_period_s",
            f"must be above metrics_interval_s and at most {LONGEST_LOOK_S:.0f}, and is 30 where it is left out: load "
            "is a mean over so many seconds.",
        )
