"""The model card (README.md) of a miniature: what it is, its data and training, and its scores.

Training writes it, and an evaluation with ``--card`` adds its table of scores.
"""

from __future__ import annotations

from pathlib import Path

CARD = "README.md"
_SCORES, _TABLE = "\n## Scores\n", "\n### "
_TEXT = """---
license: apache-2.0
---
# {name}, a miniature

A checkpoint with the architecture of {name} and one to two million parameters, trained from scratch on a synthetic
world. It is meant for tests, demonstrations and development without a GPU, and knows nothing beyond that world.

## World and data

Images of up to five shapes (circle, square, triangle, star, cross, diamond) in eight colours and two sizes on
four backgrounds, lightly textured, of any size from 64 to 1600 pixels a side and with an aspect ratio of up to 2:1. A
third of them contain a word of two to five capital letters, usually random ones. `training/data/world.py` generates all
of them from seeds; no other data was used.

## Training

{steps} steps of {batch_size} images each, on a CPU, with `python -m training.train {name}`. The project's
docs/miniatures.md describes the training, and which bundled checkpoints were trained differently from this command.

Weights and data are licensed under Apache-2.0.
"""


def write_card(folder: Path, name: str, steps: int, batch_size: int) -> None:
    """Write the card of a checkpoint, without scores."""
    (folder / CARD).write_text(_TEXT.format(name=name, steps=steps, batch_size=batch_size), encoding="utf-8")


def add_scores(folder: Path, heading: str, method: str, table: str) -> None:
    """Append a table of scores to the card, and remove an earlier one under the same heading."""
    path = folder / CARD
    card, _, scores = (path.read_text("utf-8") if path.exists() else "").partition(_SCORES)
    others = [one for one in scores.split(_TABLE)[1:] if not one.startswith(f"{heading}\n")]
    tables = [*others, f"{heading}\n\n{method}\n\n```\n{table}\n```\n"]
    path.write_text(f"{card}{_SCORES}{''.join(f'{_TABLE}{one}' for one in tables)}", encoding="utf-8")
