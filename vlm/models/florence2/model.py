"""Florence-2's half of the model contract that needs torch: BART encodes image and prompt, its decoder answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError
from vlm.layers.attention import AttentionContext
from vlm.layers.padding import right_padded
from vlm.layers.upload import upload
from vlm.models.base import Prompts, TokenModel
from vlm.models.family import Family
from vlm.models.florence2.checks import checks
from vlm.models.florence2.language import Bart
from vlm.models.florence2.processor import Florence2Processor
from vlm.models.florence2.synthetic import SIZES, write_files
from vlm.models.florence2.vision import DaVit, DaVitSpec, Projector
from vlm.models.florence2.weights import RULES, native_config, native_tensors
from vlm.models.processor import CacheSpec, Inputs
from vlm.types import Sampling

MAX_NEW_TOKENS = 1024
"""``max_new_tokens`` in the model card's example."""

IMAGES_AT_ONCE = 8
"""Maximum number of images in one pass of the vision tower on a GPU; more would not be faster."""


class Florence2(TokenModel):
    """transformers ``Florence2ForConditionalGeneration``; greedy unless the checkpoint asks for beam search."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config`` is the content of config.json, in the native or the original naming."""
        super().__init__()
        reader = ConfigReader(native_config(config), "config.json")
        spec = DaVitSpec.read(reader.section("vision_config"))
        self.vision = DaVit(spec)
        self.projector = Projector(spec)
        self.bart = Bart(reader.section("text_config"))
        decoder = self.bart.decoder.spec
        self.cache = CacheSpec(
            layers=decoder.layers,
            kv_heads=decoder.heads,
            head_dim=decoder.width // decoder.heads,
            max_positions=self.bart.max_positions,
            cross_positions=self.bart.max_positions,
        )
        self.vocabulary = self.bart.tokens.num_embeddings
        self.eos_token_ids: frozenset[int] = frozenset()
        self.defaults = Sampling()

    def finish(self, checkpoint: Checkpoint) -> None:
        """Read defaults from the generation config, but ids from the tokenizer: many uploads configure wrong ones."""
        tokenizer = checkpoint.tokenizer()
        start, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
        if start is None or end is None:
            raise CheckpointError(
                f"{checkpoint.folder}/tokenizer.json has no <s> or no </s>: it is not the tokenizer of Florence-2."
            )
        # The vision tower's grids have their channels last; otherwise each call would convert the weights.
        self.vision.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types leave it out
        settings = {**checkpoint.config.get("text_config", {}), **checkpoint.generation}
        self.eos_token_ids = frozenset({end})
        self.defaults = Sampling(
            max_tokens=MAX_NEW_TOKENS,
            temperature=0.0,
            top_p=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=settings.get("no_repeat_ngram_size") or 0,
            forced_tokens=() if settings.get("forced_bos_token_id") is None else (start,),
            forced_last_token=None if settings.get("forced_eos_token_id") is None else end,
            num_beams=settings.get("num_beams") or 1,
            length_penalty=1.0 if settings.get("length_penalty") is None else settings["length_penalty"],
            early_stopping=settings.get("early_stopping") is True,
        )

    def encode_images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Images ``[3, height, width]`` to vectors ``[image positions, width]`` of the language model's width."""
        batches = [list(pixels)] if pixels[0].device.type == "cpu" else list(batches_of_few_sizes(pixels))
        encoded: list[Tensor] = [self.projector(self.vision(torch.stack(batch))) for batch in batches]
        return torch.cat(encoded)[: len(pixels)].unbind()

    def embed(
        self, inputs: Sequence[Inputs], features: Sequence[Tensor], generated: Sequence[Sequence[int]]
    ) -> Prompts:
        """Encode images and prompts; the decoder's own prompt is its start token."""
        encoded, encoded_lengths = self._encode(inputs, features)
        rows = [[*one.prompt_ids, *ids] for one, ids in zip(inputs, generated, strict=True)]
        return Prompts(
            embeddings=self.embed_tokens(right_padded(rows, self.device)),
            lengths=tuple(map(len, rows)),
            encoded=encoded,
            encoded_lengths=encoded_lengths,
        )

    def _encode(self, inputs: Sequence[Inputs], features: Sequence[Tensor]) -> tuple[Tensor, tuple[int, ...]]:
        texts = [upload(one.encoder_ids[one.image_tokens :], self.device) for one in inputs]
        rows = [torch.cat([image, self.bart.embed(text)]) for image, text in zip(features, texts, strict=True)]
        lengths = tuple(map(len, rows))
        padded = pad_sequence(rows, batch_first=True)
        needs_mask = min(lengths) < max(lengths)
        return self.bart.encode(padded, upload(lengths, self.device) if needs_mask else None), lengths

    def cross_keys_values(self, layer: int, encoded: Tensor) -> Tensor:
        """See :class:`~vlm.models.base.VisionLanguageModel`."""
        return self.bart.decoder.cross_keys_values(layer, encoded)

    def forward(self, embeddings: Tensor, attention: AttentionContext) -> Tensor:
        """See :class:`~vlm.models.base.VisionLanguageModel`."""
        hidden: Tensor = self.bart.decoder(embeddings, attention)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        return self.bart.logits(hidden)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids of any shape to embeddings of that shape plus ``[width]``, scaled."""
        return self.bart.embed(tokens)


def batches_of_few_sizes(images: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Batches of 1, 2, 4 or 8 images; the last one is padded with the last image.

    cuDNN prepares the convolutions for each new size of a batch, which takes most of a second.
    """
    for start in range(0, len(images), IMAGES_AT_ONCE):
        batch = list(images[start : start + IMAGES_AT_ONCE])
        size = 1 << (len(batch) - 1).bit_length()
        yield batch + [batch[-1]] * (size - len(batch))


FAMILY = Family(
    model_types=("florence2",),
    model=Florence2,
    processor=Florence2Processor.from_checkpoint,
    rules=RULES,
    write_files=write_files,
    sizes=SIZES,
    native_tensors=native_tensors,
    checks=checks,
)
