"""The gallery's page, README.md: each image with its request and its answer beside it.

Owns the page's words. Knows nothing of models; images and answers are handed to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from docs.generate.questions import ASKED, Question
from docs.generate.truth import LEAST, judged
from vlm.types import Completion, Detection

_START = """\
# Examples

Every task of the models that say where things are, asked of their miniatures and drawn with `vlm.image.annotate`. The
miniatures are tiny checkpoints that show that the system works, not what the models can do; where one is wrong, it
is shown as it is. Images and this page are made by one command, nothing in them by hand:

```sh
python docs/generate/gallery.py
```

The images that are asked about are three of [those to try](../images/README.md):

"""

_LEGEND = f"""
Below, *request* goes into the body of `POST /v1/chat/completions` beside `model` and `messages`. Places are in pixels:
boxes as left, top, right, bottom, points as x, y. *Overlap* is a box's intersection with the true one over their union;
under {LEAST} it counts as wrong. Of quads and polygons it is that of the boxes around them, and a point is right within
the true box. Where the answer is words alone, they are drawn as a tag of the region that was asked about, or of the
whole image.
"""

_END = """
## Your own image

[Draw one](../images/README.md#draw-your-own) that the miniatures know, and ask from the shell; `--draw` writes it with
what was found on it:

```sh
python -m vlm miniatures/florence-2-base mine.png --task detect --draw found.png
```

An answer over HTTP has the same places in `choices[0].message.grounding["objects"]`; with those as `objects`:

```python
from PIL import Image, ImageDraw

image = Image.open("mine.png")
pen = ImageDraw.Draw(image)
for found in objects:
    pen.rectangle(found["box_px"], outline="black", width=3)
    pen.text(found["box_px"][:2], found["label"], fill="black", anchor="lb", font_size=16)
image.save("found.png")
```
"""


@dataclass(frozen=True)
class Entry:
    """A question with its answer."""

    question: Question
    answer: Completion


def written(entries: Sequence[Entry]) -> str:
    """The whole page; ``entries`` in the order in which they are shown, each model's together."""
    parts = [_START, _scenes(), _LEGEND]
    for model, group in groupby(entries, key=lambda entry: entry.question.model):
        rows = "\n".join(map(_row, group))
        parts.append(f"\n## {model}\n\n| image | request | answer | |\n|---|---|---|---|\n{rows}\n")
    return "".join((*parts, _END))


def _scenes() -> str:
    cells = [_image(f"../images/{image.name}.png", image.caption, 240) for image in ASKED]
    return f"| {' | '.join(image.name for image in ASKED)} |\n|{'---|' * len(ASKED)}\n| {' | '.join(cells)} |\n"


def _row(entry: Entry) -> str:
    question = entry.question
    request = f'`"task": {json.dumps(question.task)}`'
    image = _image(question.file, f"{question.kind} by {question.model}", 300)
    return f"| {image} | {request} | {_said(entry)} | {judged(question, entry.answer)} |"


def _image(file: str, what: str, width: int) -> str:
    return f'<img src="{file}" width="{width}" alt="{what}">'


def _said(entry: Entry) -> str:
    """The words, and a line for each thing that was found."""
    answer = entry.answer
    words = [f"*{answer.text.strip()}*"] if answer.has_text and answer.text.strip() else []
    lines = words + [_found(one, *entry.question.image.size) for one in answer.grounding.detections]
    return "<br>".join(lines) or "nothing"


def _found(found: Detection, width: int, height: int) -> str:
    name = found.label or found.text or ""
    places = [(found.point.x, found.point.y)] if found.point else []
    if not places and found.box:
        places = [(found.box.x_min, found.box.y_min), (found.box.x_max, found.box.y_max)]
    numbers = " ".join(f"{round(x * width)} {round(y * height)}" for x, y in places)
    corners = sum(map(len, found.polygons or ()))
    return f"{name} {f'{corners} corners within ' if corners else ''}`{numbers}`".strip()
