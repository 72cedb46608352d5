"""Ids say what they are asked, sort by time, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.files.file_id import DIGEST_BYTES, PURPOSES, FileId

DIGEST = bytes(range(DIGEST_BYTES))
ID = FileId(1_800_000_000_123, 1_800_003_600, 20 * 2**20, "vision", DIGEST, b"salt")


def test_it_is_safe_as_a_name_and_says_what_it_was_made_of() -> None:
    assert FileId.parse(str(ID)) == ID
    assert len(str(ID)) == 53
    assert str(ID).removeprefix("file-").isalnum()
    assert ID.created_s == 1_800_000_000


@given(
    st.builds(
        FileId, st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1),
        st.sampled_from(PURPOSES), st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES),
        st.binary(min_size=4, max_size=4),
    )
)  # fmt: skip
def test_every_id_survives_its_text(one: FileId) -> None:
    assert FileId.parse(str(one)) == one


def test_texts_sort_by_time() -> None:
    times = (1.0, 2.5, 1_800_000_000.001, 1_800_000_000.002, 3e9)
    texts = [str(FileId.new(time, 0, 2**32 - 1, "user_data", DIGEST)) for time in times]
    assert texts == sorted(texts)


def test_equal_files_of_one_millisecond_differ() -> None:
    assert len({str(FileId.new(5.0, 9, 1, "vision", DIGEST)) for _ in range(50)}) == 50


TEXT = str(ID)


@pytest.mark.parametrize(
    "text",
    [
        "", "file-", "file-abc123", TEXT[:-1], f"{TEXT}0", TEXT.upper(), TEXT.replace("file-", "file_"), f" {TEXT}",
        f"{TEXT}\n", f"../{TEXT}", "file-../../../../../../../../../../../../../../etc/pass", f"file-{'w' * 48}",
        f"file-{'é' * 48}", "file-" + "0" * 48, TEXT + "\0", "..", "/etc/passwd", "file-%2e%2e%2f", "0" * 10_000,
    ],
)  # fmt: skip
def test_nothing_else_is_an_id(text: str) -> None:
    assert FileId.parse(text) is None
