"""Makes the example image: a red circle left of a blue square, 640 by 480 pixels.

python docs/generate/draw.py OUT.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw


def example_image() -> Image.Image:
    """The image that the README asks about."""
    image = Image.new("RGB", (640, 480), (250, 250, 250))
    pen = ImageDraw.Draw(image)
    pen.circle((170, 230), 95, fill=(220, 35, 35))
    pen.rectangle((390, 150, 560, 320), fill=(40, 70, 215))
    return image


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/generate/draw.py OUT.png")
    example_image().save(Path(sys.argv[1]), optimize=True)
