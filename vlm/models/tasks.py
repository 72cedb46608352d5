"""What the ``tasks.py`` of every family needs: the errors about a task, and the report of what it does not use.

Messages name the fields of :class:`vlm.types.Task`, which have the same names over HTTP and in the shell; ``param`` is
the path of the field at fault. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.types import Task


def unsupported_task(model: str, name: str, offered: Sequence[str], prompts: Sequence[str] = ()) -> UnsupportedTask:
    """The error for a task that ``model`` does not have: it lists the tasks, and the model's own ``prompts`` if any."""
    also = f" It also takes the prompts {', '.join(prompts)}." if prompts else ""
    return UnsupportedTask(
        f"{model} has no task {name!r}; it offers: {', '.join(offered)}.{also}", param="task", code="unsupported_task"
    )


def missing_argument(task: str, field: str, wanted: str) -> InvalidRequest:
    """The error for a task whose ``field`` is missing or empty; ``wanted`` says what it must hold ("a text: ...")."""
    return InvalidRequest(f"The task {task!r} needs {wanted}.", param=f"task.{field}", code="invalid_value")


def missing_image(model: str, purpose: str = "") -> InvalidRequest:
    """The error for a request without the image that ``model`` needs, always or for a ``purpose``."""
    needed_for = f" for {purpose}" if purpose else ""
    return InvalidRequest(f"{model} needs an image{needed_for}.", param="image", code="invalid_value")


def text_of(task: Task, prompt: str) -> str:
    """The task's text, or the request's prompt if the task has none."""
    return prompt if task.text is None else task.text


def ignored_fields(task: Task, prompt: str, used: Collection[str]) -> tuple[str, ...]:
    """Paths of the fields that a request sets but its named task does not use (``"prompt"``, ``"task.labels"``).

    Args:
        task: The named task.
        prompt: The request's prompt, which is read where the task uses a text and has none of its own.
        used: Names of the Task's fields that it uses; ``"prompt"`` where it reads the prompt for another reason.
    """
    reads_prompt = "prompt" in used or ("text" in used and task.text is None)
    dropped = ("prompt",) if prompt.strip() and not reads_prompt else ()
    return dropped + task.unused(used)
