"""``reasoning.effort``: asks a model that can reason to do so before it answers a question.

There are no degrees of it here: ``none`` and ``minimal`` mean no reasoning, all others the same.
"""

from __future__ import annotations

from dataclasses import replace

from router.chat.prompt import Prompt
from router.chat.request import Chat
from router.responses.schema import Reasoning
from vlm.models.cards import card_of
from vlm.types import Request, Task

QUESTION = "query"


def asks_for_reasoning(wanted: Reasoning | None) -> bool:
    """Whether a request asks for reasoning."""
    return wanted is not None and wanted.effort not in (None, "none", "minimal")


def with_reasoning(chat: Chat, prompt: Prompt) -> Chat | None:
    """The same request with reasoning; None where the model cannot reason, or not about this.

    Args:
        chat: The request. Reasoning is for a task that is a question, and for plain words, which are one to a model
            that can reason.
        prompt: The text of the conversation.
    """
    request = chat.request
    if not card_of(chat.model).reasoning:
        return None
    if request.task is not None and request.task.name == QUESTION:
        return replace(chat, request=replace(request, task=replace(request.task, reasoning=True)))
    if is_plain(request) and prompt.text.strip() and not prompt.native:
        task = Task(QUESTION, text=prompt.text, reasoning=True)
        return replace(chat, request=replace(request, prompt="", task=task))
    return None


def is_plain(request: Request) -> bool:
    """Whether a request names no task."""
    return request.task is None and not request.tasks
