"""Dense supervision of a vision encoder: what lies in each cell of its grid. Used in training only, then thrown away.

Captions alone teach shapes slowly: one image gives a handful of tokens, and a grid gives a label to every cell. Owns
the labels and the head that reads them off. Does not know the encoder, nor what is said about a scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.lettering import letter_centres
from training.data.scenes import Scene, Shape, Word
from training.data.shapes import BACKGROUNDS, COLOURS, KINDS
from vlm.types import Box

SLOTS = 2
"""Letters that a cell can hold, side by side."""

_KINDS = {kind: index for index, kind in enumerate(KINDS, start=1)}
_COLOURS = {colour: index for index, colour in enumerate(COLOURS, start=1)}
_BACKGROUNDS = {name: index for index, name in enumerate(BACKGROUNDS)}
_CLASSES = (len(KINDS) + 1, len(COLOURS) + 1, len(BACKGROUNDS), 27, 27)
_BOX_SCALE = 4.0
_Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
_Offsets = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True)
class Cells:
    """Labels of one image's ``side`` x ``side`` cells.

    Attributes:
        classes: ``[side * side, 5]``: kind and colour (0 for none), background, the letter in each half (0 for none).
        boxes: ``[side * side, 4]``: from the cell's centre to the sides of its shape's box.
    """

    classes: _Labels
    boxes: _Offsets


def label(scene: Scene, side: int) -> Cells:
    """What lies in each cell, row by row. A shape owns the cells that its box covers to a quarter, and its centre's."""
    classes = np.zeros((side, side, len(_CLASSES)), dtype=np.int64)
    boxes = np.zeros((side, side, 4), dtype=np.float32)
    classes[:, :, 2] = _BACKGROUNDS[scene.background]
    for shape in scene.shapes:
        _label_shape(shape, classes, boxes)
    for word in scene.words:
        _label_word(word, classes)
    return Cells(classes.reshape(side * side, -1), boxes.reshape(side * side, 4))


def _label_shape(shape: Shape, classes: _Labels, boxes: _Offsets) -> None:
    side, box = len(classes), shape.box
    edges = np.linspace(0, 1, side + 1, dtype=np.float32)
    across, down = _covered(box.x_min, box.x_max, edges), _covered(box.y_min, box.y_max, edges)
    owned = np.outer(down, across) > 0.25
    owned[min(side - 1, int(shape.centre.y * side)), min(side - 1, int(shape.centre.x * side))] = True
    classes[owned, 0], classes[owned, 1] = _KINDS[shape.kind], _COLOURS[shape.colour]
    boxes[owned] = _from_centres(box, side)[owned]


def _covered(low: float, high: float, edges: _Offsets) -> _Offsets:
    """How much of each cell along one axis lies between ``low`` and ``high``, 0..1."""
    shared: _Offsets = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    return shared.clip(0) * (len(edges) - 1)


def _from_centres(box: Box, side: int) -> _Offsets:
    middles = (np.arange(side) + 0.5) / side
    out = np.empty((side, side, 4), dtype=np.float32)
    for place, value in enumerate((box.x_min, box.y_min, box.x_max, box.y_max)):
        out[:, :, place] = (value - (middles[None, :] if place % 2 == 0 else middles[:, None])) * _BOX_SCALE
    return out


def _label_word(word: Word, classes: _Labels) -> None:
    side, box = len(classes), word.box
    row = min(side - 1, int((box.y_min + box.y_max) / 2 * side))
    for letter, centre in zip(word.text, letter_centres(word.text), strict=True):
        place = min(side * SLOTS - 1, int((box.x_min + centre * (box.x_max - box.x_min)) * side * SLOTS))
        classes[row, place // SLOTS, 3 + place % SLOTS] = ord(letter) - ord("A") + 1


@dataclass(frozen=True)
class GridMeasures:
    """How well the grid is read: shares of shape cells and of letters, and the error of box sides in 0..1."""

    kind: float
    letter: float
    box: float


class GridHead(nn.Module):
    """One linear layer on every cell's features."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.read = nn.Linear(width, sum(_CLASSES) + 4)

    def forward(self, features: Tensor, scenes: Sequence[Scene]) -> tuple[Tensor, GridMeasures]:
        """``[batch, side * side, width]`` and the batch's scenes to the loss."""
        cells = [label(scene, self.side) for scene in scenes]
        classes = torch.from_numpy(np.stack([one.classes for one in cells]))
        boxes = torch.from_numpy(np.stack([one.boxes for one in cells]))
        *logits, sides = self.read(features).float().split((*_CLASSES, 4), dim=-1)
        losses = [_class_loss(one, classes[..., place]) for place, one in enumerate(logits)]
        shape = classes[..., 0] > 0
        box_loss = F.smooth_l1_loss(sides[shape], boxes[shape], beta=0.1) if shape.any() else sides.sum() * 0
        return torch.stack(losses).sum() + 3 * box_loss, _measure(logits, sides, classes, boxes)


def _class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    weight = torch.ones(logits.shape[-1])
    if logits.shape[-1] != len(BACKGROUNDS):
        weight[0] = 0.3  # most cells are empty
    return F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weight=weight)


@torch.no_grad()
def _measure(logits: Sequence[Tensor], sides: Tensor, classes: Tensor, boxes: Tensor) -> GridMeasures:
    shape = classes[..., 0] > 0
    letters = [(one.argmax(-1) == classes[..., place])[classes[..., place] > 0] for place, one in enumerate(logits)]
    return GridMeasures(
        kind=_share(letters[0]),
        letter=_share(torch.cat(letters[3:])),
        box=float((sides[shape] - boxes[shape]).abs().mean()) / _BOX_SCALE if shape.any() else 0.0,
    )


def _share(hits: Tensor) -> float:
    return float(hits.float().mean()) if len(hits) else 1.0
