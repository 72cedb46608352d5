"""Makes a sequence of a request: tokenises its text, joins it with its image, and resolves its sampling.

Runs in worker threads before the request reaches a batch, so a wrong request is refused here and affects no other. It
is refused before its image is decoded, wherever it is wrong without it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, replace

from vlm.decoding.cost import decoding_bytes
from vlm.engine import compose
from vlm.engine.blocks import longest_with_beams
from vlm.engine.output import OutputText
from vlm.engine.processor_cache import ProcessorCache
from vlm.engine.sequence import Sequence
from vlm.errors import EngineFailure, InvalidRequest, VlmError, prompt_too_long
from vlm.models.processor import Inputs, ModelFacts, ProcessedImage, Processor
from vlm.types import Request, Sampling

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """A request's image, decoded while the request waited.

    Attributes:
        key: Hash of the encoded image.
        image: The preprocessed image.
        began: Time of ``time.perf_counter`` at which preparing the request began.
    """

    key: bytes
    image: ProcessedImage
    began: float


class ImageNeeded(Exception):
    """The request is right as far as can be told without its image, which must be decoded now.

    Attributes:
        key: Hash of the encoded image.
        cost: Estimate of the bytes that decoding it holds.
        began: As :attr:`Known.began`.
    """

    def __init__(self, key: bytes, cost: int, began: float) -> None:
        super().__init__(key, cost, began)
        self.key, self.cost, self.began = key, cost, began


class Preparer:
    """Prepares requests for one model; several threads use it at once."""

    def __init__(self, model: ModelFacts, processor: Processor, blocks: int, images: ProcessorCache) -> None:
        """Prepare for ``model`` with its ``processor``.

        Args:
            model: Bounds what a request may ask for.
            processor: The model's.
            blocks: Number of blocks of the KV cache, which bounds the length of a beam search.
            images: Recent images, which need not be decoded again.
        """
        self._model = model
        self._processor = processor
        self._blocks = blocks
        self._images = images

    def prepare(self, request: Request, known: Known | None = None) -> Sequence:
        """Prepare a request for one generation.

        Args:
            request: Asks for one thing; see :mod:`vlm.engine.compose` for others.
            known: Its image, once it has been decoded.

        Raises:
            InvalidRequest: The request cannot be answered; also InvalidImage and UnsupportedTask.
            ImageNeeded: Its image must be decoded; prepare again with it.
            EngineFailure: The processor raised something else, which is a bug.
        """
        began = time.perf_counter() if known is None else known.began
        key = hashlib.sha256(request.image or b"").digest() if known is None else known.key
        inputs = self._inputs(request, key, began, known)
        sampling = self._resolve(request.sampling, inputs)
        unused = request.sampling.unused(sampling, chooses_tokens=inputs.chooses_tokens)
        inputs = replace(inputs, ignored=(*inputs.ignored, *unused))
        return Sequence(
            inputs,
            sampling,
            OutputText(self._processor.decode, inputs, sampling.stop, stream=request.stream),
            image_key=key,
            caller=request.caller,
            stream=request.stream,
            prefix=self._prefix(inputs),
            prepare_ms=1000 * (time.perf_counter() - began),
            threshold=None if request.task is None else request.task.threshold,
            label=compose.label_of(request),
        )

    def _inputs(self, request: Request, key: bytes, began: float, known: Known | None) -> Inputs:
        def preprocess(image: bytes) -> ProcessedImage:
            if known is not None:
                return known.image
            if (kept := self._images.find(key)) is not None:
                return kept
            raise ImageNeeded(key, decoding_bytes(image), began)

        try:
            return self._processor.prepare(request, preprocess)
        except (VlmError, ImageNeeded):
            raise
        except Exception as error:
            log.exception("a request could not be prepared")
            raise EngineFailure("The request could not be prepared.") from error

    def _resolve(self, requested: Sampling, inputs: Inputs) -> Sampling:
        """Fill in the checkpoint's defaults, and bound ``max_tokens`` by the context."""
        model = self._model
        resolved = requested.over(model.defaults)
        beams = resolved.num_beams or 1
        check_beams(model, beams)
        room = self._room(inputs, beams)
        check_token_ids(model, resolved)
        return replace(resolved, max_tokens=min(room, resolved.max_tokens or room, inputs.limit or room))

    def _prefix(self, inputs: Inputs) -> int:
        return 0 if inputs.pixels is None else self._model.cache.prefix_positions

    def _room(self, inputs: Inputs, beams: int) -> int:
        """Maximum number of tokens that can follow the prompt."""
        prompt = self._prefix(inputs) + len(inputs.prompt_ids)
        longest = self._model.cache.max_positions
        if prompt > longest:
            raise prompt_too_long(prompt, longest)
        if beams > 1:
            longest = min(longest, longest_with_beams(self._blocks, prompt, beams))
        return max(1, longest - prompt + 1)  # the last token is chosen but never read, so it needs no position


def check_token_ids(model: ModelFacts, sampling: Sampling) -> None:
    """Raise InvalidRequest if a token id in ``sampling`` is not one that the model can write."""
    last = () if sampling.forced_last_token is None else (sampling.forced_last_token,)
    biased = tuple(token for token, _ in sampling.logit_bias)
    named = (("forced_tokens", sampling.forced_tokens or ()), ("forced_last_token", last), ("logit_bias", biased))
    for name, tokens in named:
        wrong = next((token for token in tokens if not 0 <= token < model.vocabulary), None)
        if wrong is not None:
            raise InvalidRequest(
                f"{name} has the token id {wrong}; those of this model are from 0 to {model.vocabulary - 1}.",
                param=name,
                code="invalid_value",
            )


def check_beams(model: ModelFacts, num_beams: int) -> None:
    """Raise InvalidRequest if there are several beams and the model has no beam search."""
    if num_beams > 1 and not model.beam_search:
        raise InvalidRequest(
            "This model has no beam search: leave num_beams out, or set it to 1.", "num_beams", "invalid_value"
        )
