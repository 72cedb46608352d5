"""What a key may ask for: all or nothing over all its limits, exactly, and said as clients read it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from accounts.errors import LimitReached
from accounts.types import EVERY_MODEL, Limits
from router.accounts.limits import RateLimits, Taken, open_limits
from router.accounts.memory_counter import MemoryCounter
from router.accounts.rate_headers import spelled
from vlm.errors import InvalidRequest

pytestmark = pytest.mark.anyio


class Clock:
    """Stands still until it is told otherwise; begins with a bucket."""

    def __init__(self) -> None:
        self.now = 6000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> RateLimits:
    counter = MemoryCounter(clock=clock)
    return RateLimits(counter, counter, clock)


def of_all(**most: int) -> Mapping[str, Limits]:
    return {EVERY_MODEL: Limits(**most)}


async def refusal(limits: RateLimits, stated: Mapping[str, Limits], model: str = "m", **amounts: int) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        await limits.take("key_a", model, stated, **amounts)
    return caught.value


async def test_of_300_at_once_exactly_100_are_let_in(limits: RateLimits) -> None:
    for kind in ("requests", "images", "tokens", "concurrent"):
        asked = [limits.take(kind, "m", of_all(**{kind: 100}), images=1, tokens=1) for _ in range(300)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, Taken) for result in results) == 100
        assert sum(isinstance(result, LimitReached) and result.kind == kind for result in results) == 200


async def test_a_key_without_limits_is_always_let_in(limits: RateLimits) -> None:
    for _ in range(100):
        taken = await limits.take("key_a", "m", {EVERY_MODEL: Limits(), "other": Limits(requests=1)}, tokens=10**9)
        taken.used(3)
        taken.end()
    assert limits.headers("key_a") == {}


async def test_keys_and_models_count_for_themselves(limits: RateLimits) -> None:
    stated = {"m": Limits(requests=1), "n": Limits(requests=1)}
    for key in ("key_a", "key_b"):
        for model in ("m", "n"):
            await limits.take(key, model, stated)
    assert (await refusal(limits, stated, "m")).kind == "requests"


async def test_it_is_all_or_nothing(limits: RateLimits) -> None:
    """What one limit refuses is taken of none."""
    stated = {EVERY_MODEL: Limits(requests=3, tokens=100, concurrent=3), "m": Limits(images=2)}
    await limits.take("key_a", "m", stated, images=2, tokens=10)
    for _ in range(5):
        assert (await refusal(limits, stated, "m", images=1, tokens=10)).kind == "images"
    await limits.take("key_a", "n", stated, images=5, tokens=10)
    await limits.take("key_a", "n", stated, tokens=80)
    await refusal(limits, stated, "n")


async def test_it_may_be_tried_again_when_it_fits_and_not_before(limits: RateLimits, clock: Clock) -> None:
    stated = of_all(requests=3)
    for second in (0.25, 10.5, 20.0):
        clock.now = 6000 + second
        await limits.take("key_a", "m", stated)
    clock.now = 6030.125
    reached = await refusal(limits, stated)
    assert reached.retry_after_s == 6061 - 6030.125
    clock.now += reached.retry_after_s - 0.001
    assert (await refusal(limits, stated)).retry_after_s == 0.001
    clock.now += 0.001
    await limits.take("key_a", "m", stated)
    assert (await refusal(limits, stated)).retry_after_s == 10


async def test_many_tokens_wait_until_enough_have_left(limits: RateLimits, clock: Clock) -> None:
    stated = of_all(tokens=100)
    for second in (0, 10, 20):
        clock.now = 6000 + second
        await limits.take("key_a", "m", stated, tokens=30)
    assert (await refusal(limits, stated, tokens=30)).retry_after_s == 61 - 20
    assert (await refusal(limits, stated, tokens=60)).retry_after_s == 61 - 10
    assert (await refusal(limits, stated, tokens=100)).retry_after_s == 61


async def test_of_several_limits_the_one_is_named_that_takes_the_longest(limits: RateLimits, clock: Clock) -> None:
    stated = {EVERY_MODEL: Limits(requests=2, concurrent=1), "m": Limits(images=1)}
    (await limits.take("key_a", "m", stated)).end()
    clock.now += 20
    await limits.take("key_a", "m", stated, images=1)
    reached = await refusal(limits, stated, "m", images=1)
    assert (reached.kind, reached.retry_after_s) == ("images", 61)
    assert (
        reached.message == "The limit of 1 images a minute is reached (this key and model). Try again in 61.0 seconds."
    )
    assert (await refusal(limits, stated, "n")).kind == "requests"
    clock.now += 45
    reached = await refusal(limits, stated, "n")
    assert (reached.kind, reached.retry_after_s) == ("concurrent", 1)
    assert "1 requests at the same time" in reached.message


async def test_what_was_estimated_too_high_is_given_back(limits: RateLimits, clock: Clock) -> None:
    stated = {EVERY_MODEL: Limits(tokens=100), "m": Limits(tokens=100)}
    taken = await limits.take("key_a", "m", stated, tokens=90)
    await refusal(limits, stated, tokens=20)
    clock.now += 5
    taken.used(60)
    taken.used(50)  # what is said last holds
    await limits.take("key_a", "m", stated, tokens=50)
    await refusal(limits, stated, tokens=1)
    clock.now += 56
    await limits.take("key_a", "m", stated, tokens=50)  # all 50 have left, and no more
    await refusal(limits, stated, tokens=1)


async def test_what_was_estimated_too_low_counts(limits: RateLimits) -> None:
    stated = of_all(tokens=100)
    (await limits.take("key_a", "m", stated, tokens=10)).used(100)
    assert (await refusal(limits, stated, tokens=1)).kind == "tokens"


async def test_what_is_corrected_too_late_changes_nothing(limits: RateLimits, clock: Clock) -> None:
    stated = of_all(tokens=100)
    taken = await limits.take("key_a", "m", stated, tokens=100)
    clock.now += 61
    await limits.take("key_a", "m", stated, tokens=100)
    taken.used(0)
    await refusal(limits, stated, tokens=1)


async def test_a_place_is_free_when_its_request_has_ended_and_only_once(limits: RateLimits, clock: Clock) -> None:
    stated = {EVERY_MODEL: Limits(concurrent=2), "m": Limits(concurrent=1)}
    first = await limits.take("key_a", "m", stated)
    assert (await refusal(limits, stated)).kind == "concurrent"
    second = await limits.take("key_a", "n", stated)
    clock.now += 1000
    await refusal(limits, stated, "n")
    first.end()
    first.end()
    await limits.take("key_a", "n", stated)
    await refusal(limits, stated, "n")
    second.end()


async def test_limits_that_are_set_or_lifted_while_requests_run_count_no_place_twice(limits: RateLimits) -> None:
    before = await limits.take("key_a", "m", of_all(requests=100))
    limited = await limits.take("key_a", "m", of_all(concurrent=1))
    before.end()
    await refusal(limits, of_all(concurrent=1))
    limited.end()
    await limits.take("key_a", "m", of_all(concurrent=1))


@pytest.mark.parametrize("amounts", [{"images": 11}, {"tokens": 101}, {"requests": 4}])
async def test_what_never_fits_is_not_to_be_tried_again(limits: RateLimits, amounts: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="the key allows"):
        await limits.take("key_a", "m", of_all(requests=3, images=10, tokens=100), **amounts)


async def test_headers_tell_of_the_limit_of_which_the_least_is_left(limits: RateLimits, clock: Clock) -> None:
    stated = {EVERY_MODEL: Limits(requests=10, tokens=1000), "m": Limits(requests=50, tokens=500)}
    await limits.take("key_a", "m", stated, tokens=300)
    clock.now += 1.88
    await limits.take("key_a", "m", stated, tokens=0)
    assert limits.headers("key_a") == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-reset-requests": "1m0.12s",
        "x-ratelimit-limit-tokens": "500",
        "x-ratelimit-remaining-tokens": "200",
        "x-ratelimit-reset-tokens": "59.12s",
    }
    assert limits.headers("key_b") == {}
    clock.now += 60
    assert limits.headers("key_a") == {}


async def test_headers_after_a_refusal_tell_what_is_left(limits: RateLimits) -> None:
    stated = of_all(requests=1)
    await limits.take("key_a", "m", stated)
    await refusal(limits, stated)
    assert limits.headers("key_a") == {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m1s",
    }


async def test_headers_are_kept_of_a_bounded_number_of_keys(
    limits: RateLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.accounts.limits.REMEMBERED_KEYS", 10)
    for number in range(30):
        await limits.take(f"key_{number}", "m", of_all(requests=1))
    assert [bool(limits.headers(f"key_{number}")) for number in range(30)] == [False] * 20 + [True] * 10


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0s"), (120, "120ms"), (1000, "1s"), (8640, "8.64s"), (59_999, "59.999s"), (60_000, "1m0s"),
     (360_000, "6m0s"), (86_400, "1m26.4s"), (3_600_000, "1h0m0s")],
)  # fmt: skip
def test_durations_are_spelled_as_openai_spells_them(milliseconds: int, text: str) -> None:
    assert spelled(milliseconds) == text


async def test_without_redis_they_are_counted_here(clock: Clock) -> None:
    limits = open_limits(None)
    await limits.take("key_a", "m", of_all(requests=1))
    await refusal(limits, of_all(requests=1))
    await limits.close()


# Wrong keys


async def test_an_address_may_be_wrong_so_many_times_a_minute(limits: RateLimits, clock: Clock) -> None:
    keys = limits.failed_keys(3)
    for _ in range(3):
        keys.may_try("192.0.2.1")
        await keys.failed("192.0.2.1")
    keys.may_try("192.0.2.1")  # it may be right for once
    with pytest.raises(LimitReached) as caught:
        await keys.failed("192.0.2.1")
    assert caught.value.retry_after_s == 61
    clock.now += 60.5
    with pytest.raises(LimitReached, match="Too many wrong API keys"):
        keys.may_try("192.0.2.1")
    keys.may_try("192.0.2.2")
    clock.now += 0.5
    keys.may_try("192.0.2.1")
    await keys.failed("192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # a customer has a whole network
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unix:", "unix:", True),
        ("", "192.0.2.1", False),
    ],
)
async def test_addresses_are_told_apart_as_customers_are(limits: RateLimits, one: str, other: str, same: bool) -> None:
    keys = limits.failed_keys(1)
    await keys.failed(one)
    if same:
        with pytest.raises(LimitReached):
            await keys.failed(other)
    else:
        await keys.failed(other)


async def test_addresses_that_are_kept_out_are_of_a_bounded_number(
    limits: RateLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.accounts.failed_keys.REMEMBERED_ADDRESSES", 5)
    keys = limits.failed_keys(1)
    for number in range(10):
        await keys.failed(f"192.0.2.{number}")
        with pytest.raises(LimitReached):
            await keys.failed(f"192.0.2.{number}")
    assert len(keys._kept_out) == 5
