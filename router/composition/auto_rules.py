"""An operator's rules by which ``auto`` puts models in an order: a table, of which the first row that fits decides.

Where none fits, the order is that of the models' cards (``rank`` of the task). ``prefer`` then puts the cheapest or the
fastest first. So the same request finds the same model while prices and queues are the same.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1)]


class When(BaseModel):
    """What a request must be like; what is left out does not matter.

    Attributes:
        tasks: Canonical names, one of which is that of the request.
        names_task: Whether the request names a task, by itself or by a native prompt.
        has_text: Whether it has a text.
        latin: Whether all letters of its text are Latin, as the words are that the published models were trained on.
        has_image: Whether it has an image.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    tasks: tuple[Name, ...] = ()
    names_task: bool | None = None
    has_text: bool | None = None
    latin: bool | None = None
    has_image: bool | None = None


class AutoRule(BaseModel):
    """One row of the table.

    Attributes:
        when: What a request must be like; any is if nothing is said.
        models: Canonical names, the best first. Those that are not served, or lack the task, are passed over, and all
            others follow.
        why: The reason, in words for those who ask ``auto`` why.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    when: When = When()
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    why: str = "a rule of the operator"
