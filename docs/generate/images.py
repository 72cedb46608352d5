"""Makes the images for people to try, and writes README.md beside them.

.venv/bin/python docs/generate/images.py             everything, into docs/images/
.venv/bin/python docs/generate/images.py --into DIR  into another folder

No model is asked: the page says what is true of each image.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that a checkout works without being installed

import numpy as np
from PIL import Image

from docs.generate.images_page import render_page
from docs.generate.sample_images import IMAGES


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    into: Path = _parser().parse_args(argv).into
    into.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        (into / f"{image.name}.png").write_bytes(png(image.render()))
    (into / "README.md").write_text(render_page(IMAGES), "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make the images to try, and the page that lists them.")
    parser.add_argument(
        "--into", type=Path, default=Path(__file__).resolve().parents[1] / "images", help="folder to write to"
    )
    return parser


def png(image: Image.Image) -> bytes:
    """An RGB image as a small PNG file that loses nothing."""
    buffer = io.BytesIO()
    _paletted(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _paletted(image: Image.Image) -> Image.Image:
    """The image with a palette of exactly its colours, if it has at most 256."""
    red, green, blue = np.moveaxis(np.asarray(image, dtype=np.uint32), -1, 0)
    colours, indices = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    if len(colours) > 256:
        return image
    out = Image.frombytes("P", image.size, indices.astype(np.uint8).tobytes())
    out.putpalette([int(colour) >> shift & 255 for colour in colours for shift in (16, 8, 0)])
    return out


if __name__ == "__main__":
    main()
