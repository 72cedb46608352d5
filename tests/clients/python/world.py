"""What all clients are asked about: images whose content is known, and what the miniatures answer about them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
IMAGE = ROOT / "examples" / "circle-and-square.png"
OTHER_IMAGE = ROOT / "docs" / "images" / "one-shape.png"

CAPTION = "a red circle left of a blue square"
OTHER_CAPTION = "a green cross"
QUESTION = "How many shapes are there?"
ANSWER = "two"
OTHER_ANSWER = "one"
GROUNDED = "<grounding>An image of"


def data_url(path: Path = IMAGE) -> str:
    """The image as clients send it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


BROKEN_IMAGE = "data:image/png;base64," + base64.b64encode(b"This is no image.").decode()


def part(url: str | None = None) -> dict[str, Any]:
    """The image as a part of a chat message."""
    return {"type": "image_url", "image_url": {"url": url or data_url()}}


def user(text: str = "", url: str | None = None) -> dict[str, Any]:
    """A chat message with the image, and with text if there is any."""
    return {"role": "user", "content": [*([{"type": "text", "text": text}] if text else []), part(url)]}
