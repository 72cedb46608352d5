"""The model card of a miniature: what it is, what it was trained on, for how long, and how it scores.

Training writes it, and an examination adds its table.
"""

from __future__ import annotations

from pathlib import Path

CARD = "README.md"
_SCORES, _TABLE = "\n## Scores\n", "\n### "
_TEXT = """---
license: apache-2.0
---
# {name}, a miniature

The architecture of {name} with a million parameters or two, trained from nothing on a made-up world. It serves
tests, demonstrations and development without a GPU, and knows nothing beyond that world.

## World and data

Images of up to five shapes (circle, square, triangle, star, cross, diamond) in eight colours and two sizes on
four backgrounds, lightly textured, of any size from 64 to 1600 pixels a side and up to 2:1; a third of them with a
word of two to five capital letters, mostly random ones. All are drawn from seeds by `training/data/world.py`; no other
data was used.

## Training

{steps} steps of {batch} images each, on a CPU: what `python -m training.train {name}` does. The project's
docs/miniatures.md tells how, and what was different when this one came about.

Apache-2.0, weights and data alike.
"""


def write_card(folder: Path, name: str, steps: int, batch: int) -> None:
    """Write the card of a checkpoint that has not been examined yet."""
    (folder / CARD).write_text(_TEXT.format(name=name, steps=steps, batch=batch), encoding="utf-8")


def add_scores(folder: Path, images: str, how: str, table: str) -> None:
    """Put the table of an examination on ``images`` at the end of the card, in the place of an older one on such."""
    path = folder / CARD
    card, _, scores = (path.read_text("utf-8") if path.exists() else "").partition(_SCORES)
    others = [one for one in scores.split(_TABLE)[1:] if not one.startswith(f"{images}\n")]
    tables = [*others, f"{images}\n\n{how}\n\n```\n{table}\n```\n"]
    path.write_text(f"{card}{_SCORES}{''.join(f'{_TABLE}{one}' for one in tables)}", encoding="utf-8")
