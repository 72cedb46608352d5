"""The slow reference that the engine is compared with: transformers' own classes, one image at a time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.reference import SINCE, outdated
from vlm.types import Completion, Grounding, Request, Sampling

MINIATURES = Path(__file__).parent.parent / "miniatures"


@dataclass(frozen=True)
class Answer:
    """Generated ids, without the prompt, and the raw log-probability of each."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class Oracle:
    """transformers' ``generate`` in float32: greedy by default, otherwise with the checkpoint's generation settings.

    ``no_repeat_ngram_size`` is passed by name, because Kosmos-2's ``generate`` of transformers 5 does not pass it on.
    """

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        if self.model.config.model_type == "kosmos-2" and outdated():
            pytest.skip(f"as Kosmos-2's reference, transformers must be {SINCE} or newer")

    @torch.inference_mode()
    def answer(self, image: bytes, prompt: str, max_tokens: int, **settings: object) -> Answer:
        """What the reference generates for one image; ``settings`` are arguments of ``generate``."""
        pixels = Image.open(io.BytesIO(image)).convert("RGB")
        inputs = self.processor(images=pixels, text=prompt or None, return_tensors="pt")
        plain = {"no_repeat_ngram_size": self.model.generation_config.no_repeat_ngram_size or 0, "num_beams": 1,
                 "early_stopping": False}  # fmt: skip
        out = self.model.generate(
            **inputs, **(plain | settings), max_new_tokens=max_tokens, do_sample=False, return_dict_in_generate=True,
            output_logits=True,
        )  # fmt: skip
        beams = out.beam_indices[0].tolist() if "beam_indices" in out else [0] * len(out.logits)
        ids = out.sequences[0, -len(beams) :].tolist()
        steps = zip(out.logits, beams, ids, strict=False)  # a search continues for some steps after its best answer
        logprobs = [float(torch.log_softmax(logits[beam].float(), dim=-1)[token]) for logits, beam, token in steps]
        return Answer(tuple(ids), tuple(logprobs))


@cache
def miniature_oracle(name: str) -> Oracle:
    """The oracle of a bundled miniature, loaded once per test run."""
    return Oracle(MINIATURES / name)


def ask_all(folder: Path, requests: Sequence[Request], config: EngineConfig = EngineConfig()) -> list[Completion]:
    """Our engine's answers to all requests at once."""

    async def together(engine: Engine) -> list[Completion]:
        return await asyncio.gather(*map(engine.complete, requests))

    with Engine(load(folder, dtype="float32", device="cpu"), config) as engine:
        return asyncio.run(together(engine))


def without_scores(grounding: Grounding) -> Grounding:
    """What must be equal to the letter: scores are sums of floats, whose rounding depends on the batch."""
    bare = (replace(found, score=None, confidence=None) for found in grounding.detections)
    return replace(grounding, detections=tuple(bare))


def ask(image: bytes, prompt: str = "", **sampling: object) -> Request:
    """A greedy request with log-probabilities and the given sampling fields."""
    return Request(image, prompt, sampling=replace(Sampling(logprobs=True, num_beams=1), **sampling))  # type: ignore[arg-type]
