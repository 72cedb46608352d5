"""Makes a sequence of a request: its image decoded, its words tokenised, its settings resolved.

Runs in worker threads, before a request has touched any batch: what is wrong with it shows here. Knows no device, no
event loop, and no other request but for the images that they share.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import replace

from vlm.engine.blocks import longest_with_beams
from vlm.engine.detokenizer import Detokenizer
from vlm.engine.processor_cache import ImagePending, ProcessorCache
from vlm.engine.sequence import Sequence
from vlm.errors import EngineFailure, InvalidRequest, VlmError
from vlm.models.processor import Inputs, ModelFacts, ProcessedImage, Processor
from vlm.types import Request, Sampling

log = logging.getLogger(__name__)


class Preparer:
    """Prepares requests for one model; used from several threads at once."""

    def __init__(self, model: ModelFacts, processor: Processor, blocks: int, processor_cache_bytes: int) -> None:
        """``blocks``: of the KV cache, which bound a beam search."""
        self._model = model
        self._processor = processor
        self._blocks = blocks
        self._images = ProcessorCache(processor_cache_bytes)

    def prepare(self, request: Request, image: ProcessedImage | None = None) -> Sequence:
        """The sequence that the request becomes.

        Args:
            request: For one generation.
            image: What its image was made into, where that is known.

        Raises:
            InvalidRequest: Also as InvalidImage or UnsupportedTask.
            ImagePending: Another request is having the same image preprocessed.
            EngineFailure: A fault of ours.
        """
        began = time.perf_counter()
        key = hashlib.sha256(request.image or b"").digest()
        inputs = self._inputs(request, key, image)
        sampling = self._resolve(request.sampling, inputs)
        echo = inputs.prompt_ids[len(inputs.prompt_ids) - inputs.echo :]
        return Sequence(
            inputs,
            sampling,
            text=Detokenizer(self._processor.decode, echo, sampling.stop),
            image_key=key,
            stream=request.stream,
            prefix=self._prefix(inputs),
            prepare_ms=1000 * (time.perf_counter() - began),
            threshold=None if request.task is None else request.task.threshold,
            reasoning=self._thought(request, inputs),
        )

    def _inputs(self, request: Request, key: bytes, known: ProcessedImage | None) -> Inputs:
        def preprocess(image: bytes) -> ProcessedImage:
            return self._images.preprocess(key, image, self._processor.preprocess) if known is None else known

        try:
            return self._processor.prepare(request, preprocess)
        except (VlmError, ImagePending):
            raise
        except Exception as error:
            log.exception("a request could not be prepared")
            raise EngineFailure("The request could not be prepared.") from error

    def _thought(self, request: Request, inputs: Inputs) -> Detokenizer | None:
        if inputs.reasoning_end_id is None or not request.stream:
            return None
        return Detokenizer(self._processor.decode, strip=False)  # spans point into it

    def _resolve(self, asked: Sampling, inputs: Inputs) -> Sampling:
        """The checkpoint's defaults filled in, and the length bounded by the context."""
        model = self._model
        resolved = asked.over(model.defaults)
        beams = resolved.num_beams or 1
        if beams > 1 and not model.beam_search:
            raise InvalidRequest(
                "This model has no beam search: leave num_beams out, or set it to 1.", "num_beams", "invalid_value"
            )
        room = self._room(inputs, beams)
        last = () if resolved.forced_last_token is None else (resolved.forced_last_token,)
        for name, tokens in (("forced_tokens", resolved.forced_tokens or ()), ("forced_last_token", last)):
            if any(not 0 <= token < model.vocabulary for token in tokens):
                raise InvalidRequest(f"{name} must be from 0 to {model.vocabulary - 1}", param=name)
        return replace(resolved, max_tokens=min(room, resolved.max_tokens or room, inputs.limit or room))

    def _prefix(self, inputs: Inputs) -> int:
        return 0 if inputs.pixels is None else self._model.cache.prefix_positions

    def _room(self, inputs: Inputs, beams: int) -> int:
        """Tokens that can follow a prompt."""
        prompt = self._prefix(inputs) + len(inputs.prompt_ids)
        longest = self._model.cache.max_positions
        if prompt > longest:
            raise InvalidRequest(
                f"The prompt has {prompt} tokens; the model holds {longest}.",
                param="prompt",
                code="context_length_exceeded",
            )
        if beams > 1:
            longest = min(longest, longest_with_beams(self._blocks, prompt, beams))
        return max(1, longest - prompt + 1)  # the last token is chosen but never read, so it needs no position
