"""The page of the images to try: what is true of each, whom to ask about it, and how to draw one's own.

Owns the page's words. Knows nothing of files; asks no model.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from docs.generate.scenes import SampleImage, Thing, name_of
from training.data.scenes import Word
from training.data.sentences import dense
from training.data.shapes import BACKGROUNDS, COLOURS, KINDS, Colour

_START = """\
# Images to try

Small images of the [miniatures' world](../miniatures.md): coloured shapes and words in capitals. Images and
this page are made by one command, which asks no model; what stands here is true of the images, whatever a miniature
says. [The gallery](../gallery/README.md) shows answers.

```sh
python docs/generate/images.py
```

To ask what the table proposes, start the server with `make serve` and, in a second terminal, tell the shell how:

```sh
ask() {
  curl -s http://127.0.0.1:8000/v1/chat/completions -d '{
    "model": "'"$2"'", "task": '"$3"',
    "messages": [{"role": "user", "content": [{"type": "image_url", "image_url":
      {"url": "data:image/png;base64,'"$(base64 < docs/images/$1.png | tr -d '\\n')"'"}}]}]
  }'
}
```

Boxes are in pixels: left, top, right, bottom.

| image | true of it | ask |
|---|---|---|
"""

_PAINT = """
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

_END = """
Ask, without a server:

```sh
.venv/bin/python -m vlm miniatures/florence-2-base mine.png --task caption
.venv/bin/python -m vlm miniatures/florence-2-base mine.png --task detect --draw found.png
```

`python docs/generate/draw.py OUT.png` draws the image of the top page in the same way.
"""


def written(images: Sequence[SampleImage]) -> str:
    """The whole page."""
    return "".join((_START, *map(_row, images), _own(), _END))


def command(image: SampleImage) -> str:
    """The line for the shell that asks about an image."""
    return f"ask {image.name} {image.model} '{json.dumps(image.task)}'"


def _row(image: SampleImage) -> str:
    width, height = image.size
    shown = f'<img src="{image.name}.png" width="{min(240, width)}" alt="{image.caption}">'
    facts = [
        f"*{image.caption}*",
        *(_placed(image, thing) for thing in image.scene.things),
        f"{width} by {height}, {image.scene.background} background",
    ]
    return f"| {shown}<br>`{image.name}.png` | {'<br>'.join(facts)} | `{command(image)}` |\n"


def _placed(image: SampleImage, thing: Thing) -> str:
    name = f"the word {name_of(thing)}" if isinstance(thing, Word) else dense(thing)
    return f"{name} `{' '.join(map(str, image.corners(thing)))}`"


def _own() -> str:
    facts = "\n".join(textwrap.fill(f"* {fact}", 120, subsequent_indent="  ") for fact in _facts())
    return f"""
## Draw your own

A miniature answers about anything, but has learnt only this:

{facts}

With PIL, in these colours and sizes; it shows *a red circle left of a yellow diamond with the word TEA*:
{_PAINT}The same shapes as SVG; `rsvg-convert mine.svg -o mine.png` makes a picture of it, or a browser that takes a
screenshot. Words are better drawn with PIL: of other typefaces the miniatures know nothing.
{_SVG}"""


def _facts() -> Iterator[str]:
    """What the miniatures know, each in a sentence or two."""
    yield (
        "One to five shapes (of four or five, at most two large ones), or one word, or a word with one or two shapes. "
        "Nothing overlaps; between any two things there is at least a fiftieth of the image. Or one shape of "
        "0.14 to 0.17 in the middle of a circle, square or diamond of 0.4 (sizes as below)."
    )
    yield (
        f"Kinds: {_listed(KINDS)}; upright, filled, about as wide as high. No two shapes of an image are alike in "
        "both kind and colour, and no two have their middles in the same ninth of it."
    )
    yield f"Colours: {_shades(COLOURS)}. Shades may differ by a few levels."
    yield f"Backgrounds: {_shades(BACKGROUNDS)}."
    yield (
        "Sizes, in parts of the root of the image's area (554 pixels for 640 by 480): small shapes are 0.17 to 0.22 "
        "wide, large ones 0.31 to 0.41. What lies between has no name."
    )
    yield (
        "Words: two to five capital letters from A to Z in one line, in Pillow's own typeface, its font size 0.18 to "
        "0.34 of that root; black, or white on a black background."
    )
    yield (
        "Images: 64 to 1600 pixels a side, and up to twice as long as wide. To be told where a shape is, keep its "
        "middle away from the lines that cut the image in thirds; to be told what is left of what, or above, do not "
        "place two shapes on a diagonal."
    )


def _shades(known: Mapping[str, Colour]) -> str:
    return _listed([f"{name} {shade}" for name, shade in known.items()])


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
