"""An effort of reasoning: asks a model that can reason to do so before it answers a question.

There are no degrees of it here: ``none`` and ``minimal`` mean no reasoning, all others the same.
"""

from __future__ import annotations

from dataclasses import replace

from router.conversation.request import ConversationRequest, ParsedConversation
from vlm.models.cards import card_of
from vlm.types import Request, Task

QUESTION = "query"


def with_effort(asked: ConversationRequest, parsed: ParsedConversation, path: str) -> ConversationRequest:
    """The same request with reasoning where an effort asks for it; reported as ignored where it makes no difference.

    That is where there can be none, and where the task asks for reasoning and the effort is none.

    Args:
        asked: The request. Reasoning is for a task that is a question, and for plain words, which are one to a model
            that can reason.
        parsed: The conversation that it was, with the effort that the client wants.
        path: Where the body says so.
    """
    effort, prompt, request = parsed.effort, parsed.question.prompt, asked.request
    if effort is None:
        return asked
    if effort in ("none", "minimal"):
        return replace(asked, ignored=(*asked.ignored, path)) if reasons(request) else asked
    if card_of(asked.model).reasoning and request.task is not None and request.task.name == QUESTION:
        if request.task.reasoning:
            return asked
        return replace(
            asked, request=replace(request, task=replace(request.task, reasoning=True)), reasoning_param=path
        )
    if card_of(asked.model).reasoning and _is_plain(request) and prompt.text.strip() and not prompt.native:
        task = Task(QUESTION, text=prompt.text, reasoning=True)
        return replace(asked, request=replace(request, prompt="", task=task), resolution="plain", reasoning_param=path)
    return replace(asked, ignored=(*asked.ignored, path))


def reasons(request: Request) -> bool:
    """Whether a task of a request asks for reasoning."""
    return any(task is not None and task.reasoning for task in (request.task, *request.tasks))


def _is_plain(request: Request) -> bool:
    """Whether a request names no task."""
    return request.task is None and not request.tasks
