"""transformers' ``generate`` on a batch of images: what every peer serves."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """What is generated from an image.

    Attributes:
        folder: The checkpoint.
        prompt: The prompt as transformers' processor expects it; "" for none.
        tokens: Maximum number of new tokens.
        no_repeat_ngram_size: As in the checkpoint: some classes of transformers drop it when they read that.
        threads: Threads of torch.
    """

    folder: str
    prompt: str
    tokens: int
    no_repeat_ngram_size: int
    threads: int

    def options(self) -> list[str]:
        """The options of a command line from which :func:`setting_of` reads it again."""
        return [f"--{name}={value}" for name, value in asdict(self).items()]


def parser(program: str) -> argparse.ArgumentParser:
    """The options of every peer."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--no_repeat_ngram_size", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def setting_of(options: argparse.Namespace) -> Setting:
    """What :meth:`Setting.options` has written."""
    return Setting(options.folder, options.prompt, options.tokens, options.no_repeat_ngram_size, options.threads)


class Captions:
    """A model and its processor, in this process."""

    def __init__(self, setting: Setting) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor, logging

        torch.set_num_threads(setting.threads)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._setting = setting
        self._processor: Any = AutoProcessor.from_pretrained(setting.folder)
        # Without a dtype, transformers takes that of the files, which is float16; ours computes in float32 on a CPU.
        model: Any = AutoModelForImageTextToText.from_pretrained(setting.folder, dtype=torch.float32)
        self._model: Any = model.eval()

    def of(self, images: Sequence[bytes]) -> list[str]:
        """The text of each image, encoded in any format that Pillow reads."""
        decoded = [opened(image) for image in images]
        return self.of_decoded(decoded)

    def of_decoded(self, images: Sequence[Any]) -> list[str]:
        """The text of each of Pillow's images, which are generated as one batch."""
        import torch

        text = [self._setting.prompt] * len(images) if self._setting.prompt else None
        inputs = self._processor(images=list(images), text=text, return_tensors="pt")
        with torch.inference_mode():
            generated = self._model.generate(
                **inputs, max_new_tokens=self._setting.tokens, num_beams=1, do_sample=False,
                no_repeat_ngram_size=self._setting.no_repeat_ngram_size,
            )  # fmt: skip
        return [str(one) for one in self._processor.batch_decode(generated, skip_special_tokens=True)]


def opened(image: bytes) -> Any:
    """An image as Pillow decodes it."""
    from PIL import Image

    return Image.open(io.BytesIO(image)).convert("RGB")


def call_this_process(what: str) -> None:
    """Have /proc show what this process does, so that its CPU time can be told from that of others."""
    Path("/proc/self/comm").write_text(what, "utf-8")
