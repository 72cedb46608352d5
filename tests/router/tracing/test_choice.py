"""Which requests are traced, and as a part of which trace."""

from __future__ import annotations

from router.tracing.choice import Choice

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORDED, NOT_RECORDED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


def choice(share: float, drawn: float, *, trust: bool = False) -> Choice:
    return Choice(share, trust, lambda: drawn)


def test_without_a_caller_the_share_decides() -> None:
    assert choice(0.5, 0.49).begin([])[0].sampled
    assert not choice(0.5, 0.5).begin([])[0].sampled
    assert not choice(0.0, 0.0).begin([])[0].sampled
    assert choice(1.0, 0.999).begin([])[0].sampled
    assert choice(1.0, 0.0).begin(["nonsense"])[1] is None


def test_a_callers_trace_goes_on() -> None:
    context, caller = choice(1.0, 0.0).begin([RECORDED])
    assert caller is not None
    assert (caller.trace_id, caller.span_id, context.trace_id) == (TRACE, SPAN, TRACE)
    assert context.span_id != SPAN


def test_a_caller_cannot_have_more_recorded_than_the_share_says() -> None:
    """Neither by its flag, nor by an id of its own choice, by which others decide."""
    assert not choice(0.1, 0.2).begin([RECORDED])[0].sampled
    assert not choice(0.1, 0.2).begin([f"00-{'0' * 31}1-{SPAN}-01"])[0].sampled
    assert choice(0.1, 0.05).begin([RECORDED])[0].sampled


def test_a_caller_can_have_fewer_recorded() -> None:
    assert not choice(1.0, 0.0).begin([NOT_RECORDED])[0].sampled


def test_a_caller_that_is_trusted_decides() -> None:
    assert choice(0.0, 0.9, trust=True).begin([RECORDED])[0].sampled
    assert not choice(1.0, 0.0, trust=True).begin([NOT_RECORDED])[0].sampled
    assert not choice(0.5, 0.9, trust=True).begin([])[0].sampled
