"""Makes the example image, a red circle left of a blue square, 640 by 480 pixels.

.venv/bin/python docs/generate/example_image.py OUT.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw


def example_image() -> Image.Image:
    """The image that README.md and the example scripts ask about."""
    image = Image.new("RGB", (640, 480), (250, 250, 250))
    pen = ImageDraw.Draw(image)
    pen.circle((170, 230), 95, fill=(220, 35, 35))
    pen.rectangle((390, 150, 560, 320), fill=(40, 70, 215))
    return image


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the example image: a red circle left of a blue square.")
    parser.add_argument("out", type=Path, metavar="OUT.png", help="file to write")
    example_image().save(parser.parse_args(argv).out, optimize=True)


if __name__ == "__main__":
    main()
