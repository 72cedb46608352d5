"""Made-up images, for measuring and for trying a model out."""

from __future__ import annotations

import io
import random

from PIL import Image


def sample_image(seed: int, width: int = 640, height: int = 480) -> bytes:
    """A JPEG of coloured rectangles, which takes as long to decode and resize as a photo of its size."""
    rng = random.Random(seed)  # noqa: S311  images, not secrets
    image = Image.new("RGB", (width, height), _colour(rng))
    for _ in range(8):
        x, y = rng.randrange(width), rng.randrange(height)
        image.paste(_colour(rng), (x, y, x + rng.randrange(20, 300), y + rng.randrange(20, 300)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
