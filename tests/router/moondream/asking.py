"""The bodies that the client ``moondream`` 2.6.1 sends, key for key; what it reads of a stream; and some answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import httpx
from PIL import Image

from router.backends.base import Backend
from router.config import RouterConfig
from tests.images import data_url, encoded
from tests.router.world import SIZE, client, words
from vlm.types import Box, Completion, Detection, Grounding, Point

Json = dict[str, Any]

JPEG = encoded(Image.new("RGB", (64, 48), (220, 35, 35)), "JPEG", quality=95)
IMAGE_URL = data_url(JPEG, "image/jpeg")
"""The client makes a JPEG of whatever it is given."""

CAPTION: Json = {"image_url": IMAGE_URL, "length": "normal", "stream": False}
QUERY: Json = {"question": "What is this?", "stream": False, "image_url": IMAGE_URL}
QUERY_WITH_ALL: Json = {
    **QUERY,
    "model": "moondream-2",
    "settings": {"temperature": 0.5, "top_p": 0.3, "max_tokens": 128},
    "reasoning": True,
    "spatial_refs": [[0.5, 0.25], [0, 0, 0.5, 1]],
}
QUESTION_ALONE: Json = {"question": "What is this?", "stream": False}
DETECT: Json = {"image_url": IMAGE_URL, "object": "red square"}
POINT: Json = {"image_url": IMAGE_URL, "object": "red square"}
SEGMENT: Json = {"image_url": IMAGE_URL, "object": "red square", "stream": False}

ALL = {"caption": CAPTION, "query": QUERY, "detect": DETECT, "point": POINT, "segment": SEGMENT}


async def ask(backend: Backend, route: str, body: object, config: RouterConfig | None = None) -> httpx.Response:
    """Send one request; ``body`` is bytes, or anything that JSON holds."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client(backend, config) as http:
        return await http.post(f"/v1/{route}", content=content, headers={"x-moondream-auth": "a-key"})


def read_stream(lines: Iterable[str]) -> Iterator[str]:
    """The pieces that the client takes from a stream.

    Raises:
        ValueError: An event is not JSON.
    """
    for line in lines:
        if line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))
            if "chunk" in data:
                yield data["chunk"]
            if data.get("completed"):
                return


# Answers


def found(*detections: Detection, reasoning: str | None = None) -> Completion:
    grounding = Grounding("query", "query", None, SIZE, detections, reasoning=reasoning)
    return replace(words("Two."), grounding=grounding)


def box(*corners: float) -> Detection:
    return Detection("box", label="car", score=0.5, box=Box(*corners))


def point(x: float, y: float, *span: int) -> Detection:
    return Detection("point", label="car", score=0.5, point=Point(x, y), spans=((span[0], span[1]),) if span else ())


def polygon(*shapes: tuple[tuple[float, float], ...]) -> Detection:
    polygons = tuple(tuple(Point(*corner) for corner in shape) for shape in shapes)
    return Detection("polygon", label="car", polygons=polygons, box=Box.spanning(polygons[0]))


def corners_of(answer: Json) -> list[list[tuple[float, float]]]:
    """The corners that a path draws within the box, from 0 to 1 of the image."""
    frame = answer["bbox"]
    width, height = frame["x_max"] - frame["x_min"], frame["y_max"] - frame["y_min"]
    shapes = []
    for shape in answer["path"].removesuffix("Z").split(" Z "):
        numbers = [float(word) for word in shape.split() if word not in "ML"]
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        shapes.append([(frame["x_min"] + x * width, frame["y_min"] + y * height) for x, y in pairs])
    return shapes
