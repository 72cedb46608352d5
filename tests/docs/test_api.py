"""docs/api.md names everything that a client can send or receive: it is compared with the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.asgi.errors import TABLE
from router.asgi.room import UNCOUNTED_BYTES
from router.backends.base import ModelStatus
from router.catalogue import entry
from router.chat.response import ChatHead, completion_json
from router.chat.schema import ChatBody
from router.config import RouterConfig
from router.conversation.answer import ResponseMeta, ResponseOptions
from router.conversation.fields import MAX_LABELS, MAX_REFERENCES, Reference, TaskBody
from router.conversation.ignored import IMPOSSIBLE
from router.conversation.tools import TOOL_FIELDS
from router.responses.request import IMPOSSIBLE as IMPOSSIBLE_IN_RESPONSES
from router.responses.request import LOGPROBS, RENAMED, STORED
from router.responses.response import MAX_ECHOED_BYTES
from router.responses.schema import MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE, ResponsesBody
from tests.docs.json_keys import keys_of
from vlm.grounding_json import to_json
from vlm.models.cards import cards
from vlm.models.plain_words import MAX_CHARS, MAX_PREFIX_WORDS, RULES
from vlm.types import MAX_TASKS, Box, Completion, Detection, Grounding, Timings, TopLogprob, Usage

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/api.md").read_text("utf-8")
FOUND = Grounding("detect", "<OD>", None, (4, 3), (Detection("box", "dog", box=Box(0, 0, 1, 1), score=0.5),))


def response() -> dict[str, Any]:
    tokens: dict[str, Any] = {"token_bytes": (b"a",), "top_logprobs": ((TopLogprob(1, -0.5, b"a"),),)}
    usage, timings = Usage(1, 2, 3), Timings(0.1, 0.2, 0.3, 0.4)
    completion = Completion("", (1,), (-0.5,), FOUND, "stop", usage, timings, "task", has_text=False, **tokens)
    return completion_json(
        completion, ChatHead(ResponseMeta("florence-2-base", "req_1")), ResponseOptions(logprobs=True)
    )


def codes() -> set[str]:
    """Every error code in the sources: the argument ``code`` of our errors, and the router's tables."""
    return {code for path in sources() for code in codes_in(ast.parse(path.read_text("utf-8")))}


def sources() -> Iterator[Path]:
    for folder in ("router", "vlm/engine", "vlm/image", "vlm/models"):
        yield from (ROOT / folder).rglob("*.py")
    yield ROOT / "vlm/sampling.py"
    yield ROOT / "vlm/types.py"


def codes_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in ERRORS:
            given = [word.value for word in node.keywords if word.arg == "code"] + node.args[2:3]
            yield from (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))
        elif isinstance(node, ast.Dict):
            yield from (one for value in node.values for one in codes_of_rule(value))


def codes_of_rule(value: ast.expr) -> Iterator[str]:
    """``("message", "code")`` in the tables that turn pydantic's and Starlette's errors into ours."""
    if isinstance(value, ast.Tuple) and len(value.elts) == 2 and isinstance(value.elts[1], ast.Constant):
        code = value.elts[1].value
        if isinstance(code, str) and re.fullmatch("[a-z]+_[a-z_]+", code):
            yield code


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


ERRORS = {kind.__name__ for kind in TABLE}


@pytest.mark.parametrize("name", sorted({*ChatBody.model_fields, *TaskBody.model_fields, *Reference.model_fields}))
def test_every_field_of_a_request_is_described(name: str) -> None:
    assert f"`{name}`" in PAGE or f'"{name}":' in PAGE or f"`{name}`" in PAGE.replace("stream_options.", "`")


@pytest.mark.parametrize("name", sorted({*IMPOSSIBLE, *TOOL_FIELDS}))
def test_every_refused_field_is_named(name: str) -> None:
    assert f"`{name}`" in PAGE


OF_RESPONSES = PAGE[PAGE.index("\n## Responses API") :].split("\n## ")[1]


@pytest.mark.parametrize("name", sorted(ResponsesBody.model_fields.keys() - {"parallel_tool_calls", "stream_options"}))
def test_every_field_of_a_request_for_a_response_is_described(name: str) -> None:
    assert re.search(rf"`{name}[`.:]", OF_RESPONSES) or name in ChatBody.model_fields


@pytest.mark.parametrize("name", sorted({*STORED, *IMPOSSIBLE_IN_RESPONSES} - IMPOSSIBLE.keys()))
def test_every_refused_field_of_a_request_for_a_response_is_named(name: str) -> None:
    assert f"`{name}" in OF_RESPONSES


def test_the_table_says_what_fields_of_chat_are_called_in_responses() -> None:
    for here in {*RENAMED.values()} - {f'include: ["{LOGPROBS}"]'}:
        assert f"| `{here}" in OF_RESPONSES
    assert f'| `include`: `["{LOGPROBS}"]` | `logprobs` |' in OF_RESPONSES


def test_the_limits_of_responses_are_those_of_the_code() -> None:
    metadata = (
        f"up to {MAX_METADATA} texts of up to {MAX_METADATA_VALUE} characters, with keys of up to {MAX_METADATA_KEY}"
    )
    assert metadata in OF_RESPONSES
    assert f"up to {MAX_ECHOED_BYTES:,} bytes" in OF_RESPONSES


@pytest.mark.parametrize("key", sorted({*keys_of(to_json(FOUND, parts=[FOUND])), *keys_of(response())}))
def test_every_key_of_a_response_is_described(key: str) -> None:
    assert re.search(rf"[`\".]{key}[`\"]", PAGE), key


@pytest.mark.parametrize("code", sorted(codes() | {row.code for row in TABLE.values() if row.code}))
def test_every_error_code_is_described(code: str) -> None:
    assert f"`{code}`" in PAGE[PAGE.index("\n## Errors") :]


def test_codes_are_found_wherever_they_stand() -> None:
    found = codes()
    assert {"invalid_json", "invalid_value", "missing_required_parameter", "empty_image_file", "unknown_url"} <= found
    assert {"unsupported_task", "context_length_exceeded", "invalid_image_url"} <= found


@pytest.mark.parametrize("status", sorted({row.status for row in TABLE.values()}))
def test_every_status_is_described(status: int) -> None:
    assert re.search(rf"^\| .*\b{status}\b.* \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(keys_of(entry(ModelStatus("blip-large", True, "running"), RouterConfig()))))
def test_every_key_of_a_model_is_described(name: str) -> None:
    if name not in {"spdx", "url"}:  # within the licence
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize("model", sorted(cards()))
def test_every_task_and_prompt_token_of_a_model_is_listed(model: str) -> None:
    rows = PAGE[PAGE.index(f"| `{model}` | `") :].split("\n\n")[0]
    following = [rows.index(f"| `{other}` |") for other in cards() if other != model and f"| `{other}` |" in rows]
    own = rows[: min(following, default=len(rows))]
    for task in cards()[model].tasks:
        assert f"`{task.name}`" in own
        for token in re.findall(r"<[A-Z_]+>", " ".join(task.native)):
            assert token in own


def test_the_rules_for_plain_words_are_those_of_the_code() -> None:
    table = PAGE[PAGE.index("| words | task |") :].split("\n\n")[0].splitlines()[2:]
    lengths = [f", length `{rule.length}`" if rule.task == "caption" else "" for rule in RULES]
    rows = [f"| {', '.join(rule.words)} | `{rule.task}`{length} |" for rule, length in zip(RULES, lengths, strict=True)]
    assert table == [*rows, "| anything else | `caption`, length `normal` |"]
    assert f"prompts of more than {MAX_CHARS} characters" in PAGE
    assert f"up to {MAX_PREFIX_WORDS} words on one line" in PAGE


def test_the_limits_are_those_of_the_code() -> None:
    config = RouterConfig()
    assert f"{config.max_prompt_chars:,} characters" in PAGE
    assert f"{config.max_image_bytes >> 20} MiB and {config.max_image_pixels // 10**6} megapixels" in PAGE
    assert f"more than {config.max_body_bytes >> 20} MiB" in PAGE
    assert f"within {config.head_timeout_s:.0f} seconds" in PAGE
    assert f"within {config.body_timeout_s:.0f} seconds or at {config.min_body_bytes_per_s:,} bytes" in PAGE
    assert f"more than {config.max_head_bytes >> 10} KiB" in PAGE
    assert f"may have {config.max_total_body_bytes >> 20} MiB" in PAGE.replace("\n", " ")
    assert f"first {UNCOUNTED_BYTES >> 10} KiB" in PAGE
    assert f"up to {config.max_requests:,} requests" in PAGE
    assert f"up to {config.max_open_bodies:,} more" in PAGE
    assert f"every {config.keep_alive_s:.0f} seconds" in PAGE
    assert f"({config.request_timeout_s:.0f} seconds by default)" in PAGE
    assert f"list of 1 to {MAX_TASKS}" in PAGE
    assert f"list of up to {MAX_LABELS} strings" in PAGE
    assert f"| `references` | list of up to {MAX_REFERENCES} |" in PAGE
