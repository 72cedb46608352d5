"""The original's streaming vectors: what its pieces joined say, ours say, and no later than they.

Its splitter keeps whole words back, which its own clients expect; ours gives what is certain, token by token.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vlm.models.moondream2.driver import DATA, golden
from vlm.engine.detokenizer import Detokenizer

VECTORS: list[dict[str, Any]] = json.loads((DATA / "streaming.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{index}" for index in range(len(VECTORS))])
def test_the_deltas_joined_are_the_originals(vector: dict[str, Any]) -> None:
    text = Detokenizer(golden()[1].decode, strip=False)
    pieces = [text.push(token) for token in vector["ids"]]
    pieces.append(text.finish())
    assert "".join(pieces) == vector["joined"] == "".join(vector["chunks"])


@pytest.mark.parametrize("vector", VECTORS, ids=[f"{index}" for index in range(len(VECTORS))])
def test_an_answer_is_the_same_without_the_space_around_it(vector: dict[str, Any]) -> None:
    text = Detokenizer(golden()[1].decode)
    joined = "".join([*(text.push(token) for token in vector["ids"]), text.finish()])
    assert joined == text.text == vector["joined"].strip()
