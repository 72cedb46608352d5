"""Secrets of keys: random, of one form, and never shown."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.ids import new_id
from accounts.keys import CHARS_OF_HINT, NewKey, digest, hint_of, looks_like_key, new_secret
from accounts.types import Key, KeySpec


def test_secrets_are_random_and_of_the_form() -> None:
    made = {new_secret() for _ in range(1000)}
    assert len(made) == 1000
    assert all(looks_like_key(secret) and len(secret) == 46 for secret in made)


@pytest.mark.parametrize("text", ["", "gr-", "sk-" + "a" * 43, "gr-" + "a" * 42, "gr-" + "a" * 44, "gr-" + "ä" * 43])
def test_what_is_no_secret_is_told_without_asking(text: str) -> None:
    assert not looks_like_key(text)
    assert not looks_like_key(f"gr-{'a' * 43}\n")


@given(st.text(), st.binary(min_size=1, max_size=200))
def test_the_hash_is_the_standard_one(secret: str, pepper: bytes) -> None:
    encoded = secret.encode("utf-8", errors="replace")
    assert digest(secret, pepper) == hmac.new(pepper, encoded, hashlib.sha256).digest()


def test_a_hint_tells_little() -> None:
    secret = new_secret()
    assert hint_of(secret) == secret[:CHARS_OF_HINT]
    assert len(secret) - CHARS_OF_HINT == 39  # 234 bits are left


def test_a_repr_shows_no_secret() -> None:
    secret = new_secret()
    made = NewKey(Key("key_1", "acct_1", KeySpec("k"), hint_of(secret), prepaid=True, created_at=0), secret)
    assert secret not in f"{made} {made!r}"
    assert secret[CHARS_OF_HINT:] not in repr(made)


def test_ids_are_random_and_of_the_form() -> None:
    made = {new_id("acct") for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"acct_[a-z2-7]{24}", one) for one in made)
