"""The gallery's page, README.md: each image with its request and its answer beside it.

The text of the page is here; images and answers are handed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from docs.generate.questions import GALLERY_IMAGES, Question
from docs.generate.verdict import MIN_OVERLAP, verdict_on
from vlm.types import Completion, Detection

_INTRODUCTION = """\
# Gallery

Every task of the models that can locate things, answered by their miniatures and annotated with `vlm.image.annotate`.
The miniatures are tiny checkpoints that show that the system works, not what the models can do; a wrong answer is shown
as it is. One command makes the images and this page; nothing in them is edited by hand:

```sh
.venv/bin/python docs/generate/gallery.py
```

The questions are about three of the [images to try](../images/README.md):

"""

_LEGEND = f"""
In the tables, *request* goes into the body of `POST /v1/chat/completions` beside `model` and `messages`. Coordinates
are in pixels: of a box left, top, right and bottom, of a point x and y. *Overlap* is the intersection of a box with the
true box, divided by their union; below {MIN_OVERLAP} the answer counts as wrong. For quads and polygons it is computed
from the boxes around them, and a point is right if it lies in the true box. An answer that is only text is shown as a
label of the region that was asked about, or of the whole image.
"""

_OWN_IMAGE = """
## Your own image

[Make an image](../images/README.md#make-your-own) that the miniatures can describe, and ask from the shell; `--draw`
writes the image with the objects on it:

```sh
.venv/bin/python -m vlm miniatures/florence-2-base mine.png --task detect --draw found.png
```

An answer over HTTP has the same objects in `choices[0].message.grounding["objects"]`. With these as `objects`:

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


def render_page(entries: Sequence[Entry]) -> str:
    """The whole page; ``entries`` in the order in which they are shown, those of a model together."""
    sections = [_INTRODUCTION, _question_images(), _LEGEND]
    for model, group in groupby(entries, key=lambda entry: entry.question.model):
        rows = "\n".join(map(_row, group))
        sections.append(f"\n## {model}\n\n| image | request | answer | |\n|---|---|---|---|\n{rows}\n")
    return "".join((*sections, _OWN_IMAGE))


def _question_images() -> str:
    names = " | ".join(image.name for image in GALLERY_IMAGES)
    cells = " | ".join(_image(f"../images/{image.name}.png", image.caption, 240) for image in GALLERY_IMAGES)
    return f"| {names} |\n|{'---|' * len(GALLERY_IMAGES)}\n| {cells} |\n"


def _row(entry: Entry) -> str:
    question = entry.question
    request = f'`"task": {json.dumps(question.task)}`'
    image = _image(question.file, f"{question.kind} by {question.model}", 300)
    return f"| {image} | {request} | {_answer_cell(entry)} | {verdict_on(question, entry.answer)} |"


def _image(file: str, alternative: str, width: int) -> str:
    return f'<img src="{file}" width="{width}" alt="{alternative}">'


def _answer_cell(entry: Entry) -> str:
    """The text of the answer, and a line for each object."""
    answer = entry.answer
    text = [f"*{answer.text.strip()}*"] if answer.has_text and answer.text.strip() else []
    lines = text + [_object_line(one, *entry.question.image.size) for one in answer.grounding.detections]
    return "<br>".join(lines) or "nothing"


def _object_line(found: Detection, width: int, height: int) -> str:
    name = found.label or found.text or ""
    points = [(found.point.x, found.point.y)] if found.point else []
    if not points and found.box:
        points = [(found.box.x_min, found.box.y_min), (found.box.x_max, found.box.y_max)]
    numbers = " ".join(f"{round(x * width)} {round(y * height)}" for x, y in points)
    corners = sum(map(len, found.polygons or ()))
    return f"{name} {f'{corners} corners within ' if corners else ''}`{numbers}`".strip()
