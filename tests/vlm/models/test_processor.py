"""The helpers of the contract's torch-free half."""

from __future__ import annotations

from vlm.models.processor import replace_surrogates


def test_lone_surrogates_become_question_marks_and_all_else_stays() -> None:
    assert replace_surrogates("a\ud83d b\udc00") == "a? b?"
    assert replace_surrogates("für 😀") == "für 😀"
