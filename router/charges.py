"""What an answer is paid for, from the answer itself: the one place where tokens, images and tasks become a charge."""

from __future__ import annotations

from accounts.money import Nano
from accounts.prices import PriceList
from accounts.types import Charge
from vlm.types import Completion


def charge_of(model: str, completion: Completion, images: int, *, batch: bool = False) -> Charge:
    """The charge for a whole answer of one model about so many images."""
    usage = completion.usage
    return Charge(
        model,
        tasks_of(completion),
        images,
        images * usage.cached_tokens // usage.image_tokens if usage.image_tokens else 0,
        usage.image_tokens + usage.text_tokens,
        usage.completion_tokens,
        batch,
    )


def tasks_of(completion: Completion) -> tuple[str, ...]:
    """The canonical names of the tasks that a completion answers."""
    return tuple(part.grounding.task for part in completion.parts or (completion,))


def cost_of(
    price_list: PriceList, model: str, images: int, completion: Completion, *, batch: bool = False
) -> Nano | None:
    """What a whole answer of one model costs; None where the model has no price."""
    if model not in price_list.models:
        return None
    return price_list.amount(charge_of(model, completion, images, batch=batch))
