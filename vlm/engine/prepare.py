"""Makes a sequence of a request: tokenises its text, joins it with its image, and resolves its sampling.

This is done before the request reaches a batch, so a wrong request is refused here and affects no other. It is refused
before its image is decoded, wherever it is wrong without its pixels.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, replace

from vlm.decoding.cost import announced
from vlm.engine.blocks import longest_with_beams
from vlm.engine.output import OutputText
from vlm.engine.processor_cache import ProcessorCache
from vlm.engine.sequence import Sequence
from vlm.errors import EngineFailure, InvalidRequest, VlmError, prompt_too_long
from vlm.generations import label_of
from vlm.models.processor import NO_PIXELS, Inputs, ModelFacts, ProcessedImage, Processor
from vlm.types import EncodedImage, Request, Sampling

log = logging.getLogger(__name__)

UNPREPARED = "The request could not be prepared."


QUICK_BYTES = 256 * 1024
"""Largest image of a request that an event loop prepares itself: to hash and to scan it takes up to a millisecond."""

QUICK_CHARACTERS = 1000
"""Most text of such a request, which takes the tokenizers up to half a millisecond."""


def is_quick(request: Request, generations: int = 1) -> bool:
    """Whether an event loop may wait for the request to be prepared, which mostly takes less than handing it over.

    Not if it is one of several ``generations``: the loop would prepare all of them before it looks at anything else.
    """
    if generations > 1:
        return False
    task, sampling = request.task, request.sampling
    texts = (request.prompt, *sampling.stop, *(() if task is None else (task.text or "", *task.labels)))
    ids = len(sampling.forced_tokens or ())
    return len(request.image or b"") <= QUICK_BYTES and sum(map(len, texts)) + ids <= QUICK_CHARACTERS


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that is prepared but for the pixels of its image.

    Attributes:
        sequence: What becomes of it.
        key: Hash of what is decoded for it.
        cost: Estimate of the bytes that decoding the image holds; None if there is nothing to decode.
        began: Time of ``time.perf_counter`` at which preparing the request began.
    """

    sequence: Sequence
    key: bytes
    cost: int | None
    began: float

    def finished(self, image: ProcessedImage | None = None) -> Sequence:
        """The sequence, with the pixels of ``image`` if they were missing.

        Raises:
            EngineFailure: The image is not of the size that its scan tells, so its pixels are not of this request.
        """
        sequence = self.sequence
        if image is not None:
            if image.size != sequence.inputs.image_size:
                raise EngineFailure(UNPREPARED)
            sequence.inputs = replace(sequence.inputs, pixels=image.pixels)
        sequence.arrived = time.perf_counter()
        sequence.prepare_ms = 1000 * (sequence.arrived - self.began)
        return sequence


class _Lookup:
    """What a processor gets of an image before it is decoded: the cached pixels, or the size that its scan tells."""

    def __init__(self, kept: ProcessedImage | None, *, few_parts: bool) -> None:
        self._kept = kept
        self._few_parts = few_parts
        self.cost: int | None = None

    def __call__(self, image: EncodedImage) -> ProcessedImage:
        if self._kept is not None:
            return self._kept
        found = announced(image, few_parts=self._few_parts)
        self.cost = found.memory_bytes
        return ProcessedImage(NO_PIXELS, found.size)


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

    def draft(self, request: Request, *, few_parts: bool = False) -> Draft:
        """Prepare a request for one generation, but for the pixels of its image if they are not cached.

        Args:
            request: Asks for one thing; see :mod:`vlm.engine.compose` for others.
            few_parts: As for :func:`~vlm.decoding.cost.announced`.

        Raises:
            InvalidRequest: The request cannot be answered; also InvalidImage and UnsupportedTask.
            EngineFailure: The processor raised something else, which is a bug.
        """
        began = time.perf_counter()
        key = key_of(request)
        lookup = _Lookup(self._images.find(key), few_parts=few_parts)
        inputs = self._inputs(request, lookup)
        sampling = self._resolve(request.sampling, inputs)
        if unused := request.sampling.unused(sampling, chooses_tokens=inputs.chooses_tokens):
            inputs = replace(inputs, ignored=(*inputs.ignored, *unused))
        sequence = Sequence(
            inputs,
            sampling,
            OutputText(self._processor.decode, inputs, sampling.stop, stream=request.stream),
            image_key=key,
            caller=request.caller,
            stream=request.stream,
            prefix=self._prefix(inputs),
            threshold=None if request.task is None else request.task.threshold,
            label=label_of(request),
            batch=request.priority == "batch",
            request_id=request.request_id,
        )
        return Draft(sequence, key, lookup.cost, began)

    def _inputs(self, request: Request, lookup: _Lookup) -> Inputs:
        try:
            return self._processor.prepare(request, lookup)
        except VlmError:
            raise
        except Exception as error:
            log.exception("a request could not be prepared")
            raise EngineFailure(UNPREPARED) from error

    def _resolve(self, requested: Sampling, inputs: Inputs) -> Sampling:
        """Fill in the checkpoint's defaults, and bound ``max_tokens`` by the context."""
        model = self._model
        resolved = requested.over(model.defaults)
        beams = resolved.num_beams or 1
        check_beams(model, beams)
        room = self._room(inputs, beams)
        check_token_ids(model, resolved)
        max_tokens = min(room, resolved.max_tokens or room, inputs.limit or room)
        return resolved if max_tokens == resolved.max_tokens else replace(resolved, max_tokens=max_tokens)

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


def key_of(request: Request) -> bytes:
    """Hash of what is decoded for a request: of the encoded image, and of the part that is wanted of it."""
    key = hashlib.sha256(request.image or b"")
    if request.crop is not None:
        key.update(repr(request.crop).encode())
    return key.digest()


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
