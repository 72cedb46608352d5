"""Tools: an offer is left aside and reported, a demand is refused in words that clients know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.config import RouterConfig
from router.conversation.request import ConversationRequest
from tests.router.clients import SEARCH, langchain_agent, open_webui
from tests.router.world import FakeBackend, body, check_error, post, read_chat
from vlm.errors import InvalidRequest

DROPPING = RouterConfig(drop_params=True)


def read(request: dict[str, Any], config: RouterConfig = RouterConfig()) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), config)


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"tool_choice": "none"}, {"tool_choice": None}])
def test_offered_tools_are_ignored_and_reported(choice: dict[str, Any]) -> None:
    assert read(body(tools=[SEARCH], **choice)).ignored == ("tools",)
    assert read(body(functions=[SEARCH["function"]], function_call="auto")).ignored == ("functions",)
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}}
    assert read(body(tools=[SEARCH], tool_choice=allowed)).ignored == ("tools",)
    assert read(body(tools=[], functions=[], **choice)).ignored == ()


def test_what_chat_interfaces_and_agents_send_is_answered() -> None:
    assert read(open_webui("<OD>")).ignored == ("tools", "messages[0]", "messages[1].content[0]")
    assert read(langchain_agent()).ignored[:3] == ("parallel_tool_calls", "messages[4].name", "tools")


@pytest.mark.parametrize(
    "demand",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function"}},
        {"tool_choice": []},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}},
    ],
)
@pytest.mark.anyio
async def test_a_demand_is_refused_in_words_that_clients_know(demand: dict[str, Any]) -> None:
    answer = await post(FakeBackend(), body(tools=[SEARCH], **demand))
    error = check_error(answer, 400, "unsupported_parameter", "tool_choice")
    assert error["message"].startswith("blip-large does not support tools")
    assert "JSON schema" in error["message"], "agents ask for typed answers by a tool unless they are told otherwise"
    assert read(body(tools=[SEARCH], drop_params=True, **demand)).ignored == ("tools", "tool_choice")


def test_the_operator_can_have_fields_dropped() -> None:
    assert read(body(audio={}, tool_choice="required"), DROPPING).ignored == ("tool_choice", "audio")
    with pytest.raises(InvalidRequest):
        read(body(audio={}, drop_params=False), DROPPING)
    with pytest.raises(InvalidRequest):
        read(body(audio={}))
