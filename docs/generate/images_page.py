"""The page of the images to try: what is true of each, which request suits it, and how to make one's own.

The text of the page is here; no model is asked.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from docs.generate.sample_images import SampleImage, Thing, name_of
from training.data.scenes import Word
from training.data.sentences import dense
from training.data.shapes import BACKGROUNDS, COLOURS, KINDS, Colour

_INTRODUCTION = """\
# Images to try

Small images of the [miniatures' world](../miniatures.md): coloured shapes and words in capitals. One command makes the
images and this page, without asking a model: the table says what is true of each image, whatever a miniature answers.
[The gallery](../gallery/README.md) shows answers.

```sh
.venv/bin/python docs/generate/images.py
```

To send the requests of the table, start the server with `make serve` and define this function in a second terminal:

```sh
ask() {
  curl -sSw '\\n' http://127.0.0.1:8000/v1/chat/completions -d @- <<END
{"model": "$2", "task": $3, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url":
  {"url": "data:image/png;base64,$(base64 < docs/images/$1.png)"}}]}]}
END
}
```

Boxes are in pixels: left, top, right, bottom.

| image | what is in it | request |
|---|---|---|
"""

_PILLOW = """
```python
from PIL import Image, ImageDraw

image = Image.new("RGB", (640, 480), (248, 248, 248))
pen = ImageDraw.Draw(image)
pen.circle((140, 140), 95, fill=(220, 35, 35))
pen.polygon([(500, 45), (595, 140), (500, 235), (405, 140)], fill=(240, 215, 40))
pen.text((200, 300), "TEA", fill=(12, 12, 12), font_size=150)
image.save("mine.png")
```

"""

_SVG = """
```svg
<svg xmlns="http://www.w3.org/2000/svg" width="640" height="480">
  <rect width="640" height="480" fill="rgb(248,248,248)"/>
  <circle cx="140" cy="140" r="95" fill="rgb(220,35,35)"/>
  <polygon points="500,45 595,140 500,235 405,140" fill="rgb(240,215,40)"/>
</svg>
```
"""

_ASK = """
Ask about it, without a server:

```sh
.venv/bin/python -m vlm miniatures/florence-2-base mine.png --task caption
.venv/bin/python -m vlm miniatures/florence-2-base mine.png --task detect --draw found.png
```

`.venv/bin/python docs/generate/example_image.py OUT.png` makes the image of the main README in the same way.
"""


def render_page(images: Sequence[SampleImage]) -> str:
    """The whole page."""
    return "".join((_INTRODUCTION, *map(_row, images), _make_your_own(), _ASK))


def command(image: SampleImage) -> str:
    """The shell command that asks about an image."""
    return f"ask {image.name} {image.model} '{json.dumps(image.task)}'"


def _row(image: SampleImage) -> str:
    width, height = image.size
    shown = f'<img src="{image.name}.png" width="{min(240, width)}" alt="{image.caption}">'
    facts = [
        f"*{image.caption}*",
        *(_located(image, thing) for thing in image.scene.things),
        f"{width} by {height}, {image.scene.background} background",
    ]
    return f"| {shown}<br>`{image.name}.png` | {'<br>'.join(facts)} | `{command(image)}` |\n"


def _located(image: SampleImage, thing: Thing) -> str:
    name = f"the word {name_of(thing)}" if isinstance(thing, Word) else dense(thing)
    return f"{name} `{' '.join(map(str, image.corners(thing)))}`"


def _make_your_own() -> str:
    facts = "\n".join(textwrap.fill(f"* {fact}", 120, subsequent_indent="  ") for fact in _facts())
    return f"""
## Make your own

A miniature gives an answer about any image, but it was trained only on images such as these:

{facts}

With Pillow, in these colours and sizes; the image shows *a red circle left of a yellow diamond with the word TEA*:
{_PILLOW}The same shapes as SVG; `rsvg-convert mine.svg -o mine.png` converts it to PNG, or take a screenshot in a
browser. Write words with Pillow: the miniatures can read only its typeface.
{_SVG}"""


def _facts() -> Iterator[str]:
    """The rules of the miniatures' world, each in a sentence or two."""
    yield (
        "One to five shapes (of four or five, at most two large ones), or one word, or a word with one or two shapes. "
        "Nothing overlaps; the gap between any two things is at least a fiftieth of the image. Or one shape of 0.14 to "
        "0.17 in the middle of a circle, square or diamond of 0.4 (sizes as below)."
    )
    yield (
        f"Kinds: {_listed(KINDS)}; upright, filled, about as wide as high. No two shapes of an image have both the "
        "same kind and the same colour, and no two have their centres in the same cell of a 3 by 3 grid."
    )
    yield f"Colours: {_shades(COLOURS)}. Each channel may differ by a few levels."
    yield f"Backgrounds: {_shades(BACKGROUNDS)}."
    yield (
        "Sizes, in parts of the square root of the image's area (554 pixels for 640 by 480): small shapes are 0.17 to "
        "0.22 wide, large ones 0.31 to 0.41. Sizes between these have no name."
    )
    yield (
        "Words: two to five capital letters from A to Z in one line, in Pillow's default typeface, with a font size of "
        "0.18 to 0.34 of that root; black, or white on a black background."
    )
    yield (
        "Images: 64 to 1600 pixels a side, and up to twice as long as wide. If the position of a shape is to be "
        "described, keep its centre away from the lines that cut the image into thirds; if it is to be left of or "
        "above another shape, do not place the two on a diagonal."
    )


def _shades(known: Mapping[str, Colour]) -> str:
    return _listed([f"{name} {shade}" for name, shade in known.items()])


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
