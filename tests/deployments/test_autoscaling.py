"""How many replicas there should be, for a model whose load a test makes up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.autoscaling import Past, ScalingConfig, Seen, decide
from vlm.errors import ConfigError

CONFIG = ScalingConfig(target_queue_s=1.0, max_step=4, settle_s=3.0, quiet_s=60.0, idle_s=120.0)
STEP_S = 0.5


@dataclass
class Model:
    """Its replicas start at once unless a test says otherwise."""

    config: ScalingConfig = CONFIG
    minimum: int = 1
    maximum: int = 8
    running: int = 1
    target: int = 1
    now: float = 1000.0
    past: Past = field(default_factory=Past)

    def sees(self, busy: float = 0.0, waiting_s: float = 0.0, asked: bool | None = None, growth: float = 0.0) -> int:
        """Half a second later."""
        self.now += STEP_S
        active = busy + waiting_s > 0 if asked is None else asked
        seen = Seen(self.now, self.running, self.target, self.minimum, self.maximum, busy, waiting_s, growth, active)
        self.target, self.past = decide(self.config, seen, self.past)
        return self.target

    def goes_on(self, seconds: float, busy: float = 0.0, waiting_s: float = 0.0) -> list[int]:
        """The same is seen for so long; what is decided in that time. Replicas start and end at once."""
        found = []
        for _ in range(int(seconds / STEP_S)):
            found.append(self.sees(min(busy, self.running), waiting_s))
            self.running = self.target
        return found


@pytest.fixture
def model() -> Model:
    settled = Model()
    settled.goes_on(10)
    return settled


def test_waiting_work_adds_replicas_at_once(model: Model) -> None:
    assert model.sees(busy=1.0, waiting_s=1.5) == 3


def test_a_smaller_target_queue_adds_more(model: Model) -> None:
    model.config = replaced(target_queue_s=0.5)
    assert model.sees(busy=1.0, waiting_s=1.5) == 5


def test_a_replica_is_added_before_requests_wait(model: Model) -> None:
    assert model.sees(busy=0.8) == 1
    assert model.sees(busy=0.81) == 2


def test_no_more_than_a_step_is_added_to_what_runs(model: Model) -> None:
    assert [model.sees(busy=1.0, waiting_s=100.0) for _ in range(20)] == [5] * 20  # as long as none of the four runs
    model.running = 3
    assert model.sees(busy=1.0, waiting_s=100.0) == 5  # two have just started, and the others do not know it yet
    assert [model.sees(busy=3.0, waiting_s=100.0) for _ in range(10)][-1] == 7


def test_a_queue_that_is_gone_before_a_replica_could_help_adds_none(model: Model) -> None:
    """What waited for the first replica, of a load that keeps it less than half busy."""
    assert model.sees(busy=1.0, waiting_s=3.0, growth=-0.6) == 1
    assert model.sees(busy=1.0, waiting_s=3.0, growth=0.2) == 5


def test_a_queue_that_becomes_shorter_too_slowly_counts(model: Model) -> None:
    assert model.sees(busy=1.0, waiting_s=3.0, growth=-0.1) == 5


def test_a_queue_that_only_ends_because_much_is_done_does_not_hide_the_load(model: Model) -> None:
    model.running = model.target = 3
    model.goes_on(5, busy=2.0)
    assert model.sees(busy=3.0, waiting_s=2.0, growth=-0.3) == 4


def test_fewer_are_enough_only_when_they_were_for_the_quiet_time(model: Model) -> None:
    model.running = model.target = 4
    model.goes_on(5, busy=3.0)
    assert set(model.goes_on(CONFIG.quiet_s - 1, busy=1.0)) == {4}
    assert model.goes_on(1, busy=2.5)[-1] == 4  # once more than the rest could carry with a margin
    assert set(model.goes_on(CONFIG.quiet_s - 1, busy=1.0)) == {4}
    assert model.goes_on(3, busy=1.0)[-1] == 2


def test_the_busiest_moment_of_the_quiet_time_counts(model: Model) -> None:
    model.running = model.target = 6
    model.goes_on(20, busy=0.1)
    model.goes_on(1, busy=1.7)
    assert model.goes_on(CONFIG.quiet_s, busy=0.1)[-1] == 3


def test_replicas_that_cannot_be_started_are_given_up(model: Model) -> None:
    assert model.sees(busy=1.0, waiting_s=3.0) == 5
    found = [model.sees(busy=0.1) for _ in range(int(CONFIG.quiet_s / STEP_S) + 2)]
    assert (found[0], found[-1]) == (5, 1)


def test_zero_needs_leave_and_an_idle_time(model: Model) -> None:
    assert model.goes_on(3 * CONFIG.idle_s)[-1] == 1
    model.minimum = 0
    model.sees(asked=True)
    assert set(model.goes_on(CONFIG.idle_s - 1)) == {1}
    assert model.sees(asked=True) == 1
    assert set(model.goes_on(CONFIG.idle_s - 1)) == {1}
    assert model.goes_on(2)[-1] == 0


def test_a_model_that_has_just_been_seen_is_not_idle() -> None:
    """The controller may have been replaced: nobody knows when there was a request."""
    model = Model(minimum=0)
    assert model.sees() == 1


def test_what_wakes_is_not_given_up_before_it_runs() -> None:
    model = Model(minimum=0, running=0, target=1)
    assert {model.sees() for _ in range(1000)} == {1}
    model.running = 1
    assert {model.sees() for _ in range(int(CONFIG.idle_s / STEP_S) - 1)} == {1}
    assert [model.sees() for _ in range(3)][-1] == 0


def test_what_sleeps_goes_on_sleeping() -> None:
    model = Model(minimum=0, running=0, target=0)
    assert {model.sees() for _ in range(1000)} == {0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target_queue": 1.0}, "target_queue is not a known setting; did you mean target_queue_s?"),
        ({"target_queue_s": 0}, "target_queue_s must be above 0."),
        ({"occupancy": 1.5}, "occupancy must be at most 1."),
        ({"margin": 1.0}, "margin must be below 1."),
        ({"max_step": 0}, "max_step must be above 0."),
        ({"max_step": 1.5}, "max_step must be a whole number."),
        ({"settle_s": -1.0}, "settle_s must be at least 0."),
        ({"quiet_s": "60"}, "quiet_s must be a number."),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ScalingConfig.from_args(wrong)
    assert message in caught.value.message


def test_a_quiet_time_does_not_end_in_more_than_a_target_that_was_lowered_meanwhile() -> None:
    config = replaced(quiet_s=60.0)
    seen = Seen(now=0.0, running=10, target=10, minimum=1, maximum=20, busy=4.0)
    _, past = decide(config, seen, Past(running=10, asked_at=0.0))
    assert past.most > 2
    lowered = replace(seen, now=61.0, running=2, target=2, busy=0.1)
    assert decide(config, lowered, past)[0] == 2


# Properties


counts = st.integers(0, 12)
amounts = st.floats(0, 20)
times = st.floats(0, 2000)
seconds = st.floats(0.05, 600)
configs = st.builds(
    ScalingConfig,
    target_queue_s=st.floats(0.05, 30),
    occupancy=st.floats(0.05, 1),
    margin=st.floats(0, 0.9),
    max_step=st.integers(1, 5),
    start_s=st.floats(0.5, 100),
    settle_s=st.floats(0, 10),
    quiet_s=seconds,
    idle_s=seconds,
)
moments = st.builds(
    Seen,
    now=times,
    running=counts,
    target=counts,
    minimum=st.integers(0, 3),
    maximum=st.integers(3, 10),
    busy=amounts,
    waiting_s=amounts,
    growth=st.floats(-8, 8),
    asked=st.booleans(),
)
pasts = st.builds(Past, running=counts, grown_at=times, quiet_since=st.none() | times, most=counts, asked_at=times)


@given(configs, moments, pasts)
def test_the_bounds_are_kept(config: ScalingConfig, seen: Seen, past: Past) -> None:
    replicas, _ = decide(config, seen, past)
    assert seen.minimum <= replicas <= seen.maximum


@given(configs, moments, pasts, amounts, amounts)
def test_more_work_never_means_fewer_replicas(
    config: ScalingConfig, seen: Seen, past: Past, busy: float, waiting_s: float
) -> None:
    more = replace(seen, busy=seen.busy + busy, waiting_s=seen.waiting_s + waiting_s)
    assert decide(config, more, past)[0] >= decide(config, seen, past)[0]


@given(configs, moments, pasts)
def test_no_more_than_a_step_beyond_what_runs_or_was_meant_to(config: ScalingConfig, seen: Seen, past: Past) -> None:
    replicas, _ = decide(config, seen, past)
    assert replicas <= max(seen.minimum, seen.target, seen.running + config.max_step)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 1), st.floats(0, 0.9), st.floats(0, 6), st.integers(1, 10))
def test_a_steady_load_changes_the_number_in_one_direction_only(
    occupancy: float, margin: float, busy: float, began: int
) -> None:
    """Whatever is added for a steady load is not given up again, and what is given up is not missed."""
    config = replaced(occupancy=occupancy, margin=margin, quiet_s=5.0, settle_s=1.0)
    model = Model(config, maximum=200, running=began, target=began)
    found = model.goes_on(60, busy=busy)
    changes = [after - before for before, after in pairwise(found) if after != before]
    assert all(change > 0 for change in changes) or all(change < 0 for change in changes)
    assert len(set(found[-50:])) == 1


def replaced(**settings: Any) -> ScalingConfig:
    return CONFIG.model_copy(update=settings)
