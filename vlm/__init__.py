"""Small vision-language models in one batch: the library, without Ray and without HTTP.

    from vlm import Engine, Request, load

    with Engine(load("miniatures/blip-large")) as engine:
        print(engine.answer(Request(image)).text)

The names below are imported when they are first used, so that ``import vlm`` loads neither torch nor Ray: the router
imports parts of this package in a process that has no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm.engine.config import EngineConfig
    from vlm.engine.engine import Engine
    from vlm.errors import VlmError
    from vlm.loading import load
    from vlm.types import Box, Completion, Detection, Grounding, Point, Request, Sampling, Task

__all__ = (
    "Box",
    "Completion",
    "Detection",
    "Engine",
    "EngineConfig",
    "Grounding",
    "Point",
    "Request",
    "Sampling",
    "Task",
    "VlmError",
    "load",
)

_MODULES = {
    "Engine": "vlm.engine.engine",
    "EngineConfig": "vlm.engine.config",
    "VlmError": "vlm.errors",
    "load": "vlm.loading",
}
"""Where each exported name is defined; those that are not listed are in ``vlm.types``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "vlm.types")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
