"""Prices: exact in nano-dollars, and never more than was said before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.money import NANO_PER_DOLLAR, dollars_of, nano_of
from accounts.prices import ModelPrices, PriceList, TaskPrice, of_thousand, per_thousand
from accounts.types import Charge

MODEL = "moondream-2"
TASKS = ("caption", "query", "detect")
AMOUNTS = st.integers(0, 10_000_000)
PRICES = st.builds(
    ModelPrices, AMOUNTS, AMOUNTS, st.dictionaries(st.sampled_from(TASKS), st.builds(TaskPrice, AMOUNTS, AMOUNTS))
)


@pytest.mark.parametrize(
    ("dollars", "amount"), [("0", 0), ("0.094", 94_000_000), ("1", NANO_PER_DOLLAR), ("-2.5", -2_500_000_000)]
)
def test_amounts_are_read_and_written_exactly(dollars: str, amount: int) -> None:
    assert nano_of(dollars) == amount
    assert dollars_of(amount) == dollars


@given(st.integers(-(10**17), 10**17))
def test_every_amount_survives_its_text(amount: int) -> None:
    assert nano_of(dollars_of(amount)) == amount


@pytest.mark.parametrize(
    "text", ["", "1.", ".5", "1e3", "0.0000000001", "1,5", " 1", "$1", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal string"):
        nano_of(text)


@given(st.integers(0, 10**12))
def test_prices_of_a_thousand_are_exact(amount: int) -> None:
    assert of_thousand(per_thousand(amount)) == amount


def test_a_price_that_is_no_whole_nano_dollar_a_piece_is_refused() -> None:
    with pytest.raises(ValueError, match="six digits"):
        of_thousand("0.0000001")


def test_what_an_answer_costs() -> None:
    prices = ModelPrices(626_000, 313_000, {"query": TaskPrice(50_000, 400), "caption": TaskPrice(10_000, 0)})
    listed = PriceList({MODEL: prices})
    charge = Charge(MODEL, ("query", "caption"), images=3, cached_images=1, completion_tokens=7)
    assert listed.amount(charge) == 2 * 626_000 + 313_000 + 3 * 60_000 + 7 * 400


def test_a_request_without_an_image_pays_for_one() -> None:
    assert PriceList({MODEL: ModelPrices(626_000, 313_000)}).amount(Charge(MODEL, ("query",))) == 626_000


def test_a_batch_pays_its_part_rounded_up() -> None:
    listed = PriceList({MODEL: ModelPrices(3, 3)}, batch_percent=50)
    assert listed.amount(Charge(MODEL, images=1, batch=True)) == 2


def test_a_model_without_a_price_is_free() -> None:
    assert PriceList().amount(Charge(MODEL, images=5)) == 0
    assert PriceList().at_most(MODEL, 5) == 0


CHARGES = st.builds(
    Charge,
    model=st.just(MODEL),
    tasks=st.lists(st.sampled_from(TASKS), max_size=3, unique=True).map(tuple),
    images=st.integers(0, 16),
    cached_images=st.integers(0, 16),
    completion_tokens=st.integers(0, 4096),
    batch=st.booleans(),
)


@given(PRICES, CHARGES, st.integers(0, 4096), st.integers(0, 100))
def test_an_answer_never_costs_more_than_was_said_before(
    prices: ModelPrices, charge: Charge, more_tokens: int, percent: int
) -> None:
    listed = PriceList({MODEL: prices}, batch_percent=percent)
    tokens = charge.completion_tokens + more_tokens
    assert listed.amount(charge) <= listed.at_most(MODEL, charge.images, charge.tasks, tokens, batch=charge.batch)


@given(PRICES, st.sampled_from(TASKS), st.integers(1, 16), st.integers(0, 4096))
def test_nor_more_than_was_said_when_the_task_was_not_known(
    prices: ModelPrices, task: str, images: int, tokens: int
) -> None:
    listed = PriceList({MODEL: prices})
    assert listed.amount(Charge(MODEL, (task,), images, 0, 0, tokens)) <= listed.at_most(MODEL, images, (), tokens)


def test_the_same_prices_have_the_same_digest_and_others_another() -> None:
    one, two = PriceList({MODEL: ModelPrices(1, 1)}), PriceList({MODEL: ModelPrices(1, 1)})
    assert one.digest == two.digest
    assert one.digest != PriceList({MODEL: ModelPrices(2, 1)}).digest
    assert one.digest != PriceList({MODEL: ModelPrices(1, 1)}, version="2026-12").digest
