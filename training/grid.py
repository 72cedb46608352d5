"""Dense supervision of a vision encoder: labels for every cell of its grid, and a head that predicts them.

Captions alone teach shapes slowly: an image gives a handful of tokens, but a label for every cell of the grid. The head
is used in training only and is not exported.
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
from training.losses import share
from vlm.types import Box

SLOTS = 2
"""Number of letters in a cell, side by side."""

_KINDS = {kind: index for index, kind in enumerate(KINDS, start=1)}
_COLOURS = {colour: index for index, colour in enumerate(COLOURS, start=1)}
_BACKGROUNDS = {name: index for index, name in enumerate(BACKGROUNDS)}
_CLASSES = (len(KINDS) + 1, len(COLOURS) + 1, len(BACKGROUNDS), 27, 27)
_BOX_SCALE = 4.0
_Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
_Offsets = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True)
class Cells:
    """Labels of the ``side`` x ``side`` cells of one image.

    Attributes:
        classes: int64 ``[side * side, 5]``: kind and colour (0 for none), background, the letter in each half of the
            cell (0 for none).
        boxes: float32 ``[side * side, 4]``: the sides of the shape's box, relative to the cell's centre.
    """

    classes: _Labels
    boxes: _Offsets


def label(scene: Scene, side: int) -> Cells:
    """The labels of a scene's cells, row by row.

    A cell belongs to a shape if the shape's box covers more than a quarter of it, or if the shape's centre is in it.
    """
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
    across, down = _coverage(box.x_min, box.x_max, edges), _coverage(box.y_min, box.y_max, edges)
    in_shape = np.outer(down, across) > 0.25
    in_shape[min(side - 1, int(shape.centre.y * side)), min(side - 1, int(shape.centre.x * side))] = True
    classes[in_shape, 0], classes[in_shape, 1] = _KINDS[shape.kind], _COLOURS[shape.colour]
    boxes[in_shape] = _box_offsets(box, side)[in_shape]


def _coverage(low: float, high: float, edges: _Offsets) -> _Offsets:
    """The share of each cell that lies between ``low`` and ``high`` along one axis."""
    inside: _Offsets = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    return inside.clip(0) * (len(edges) - 1)


def _box_offsets(box: Box, side: int) -> _Offsets:
    centres = (np.arange(side) + 0.5) / side
    out = np.empty((side, side, 4), dtype=np.float32)
    for index, value in enumerate((box.x_min, box.y_min, box.x_max, box.y_max)):
        out[:, :, index] = (value - (centres[None, :] if index % 2 == 0 else centres[:, None])) * _BOX_SCALE
    return out


def _label_word(word: Word, classes: _Labels) -> None:
    side, box = len(classes), word.box
    row = min(side - 1, int((box.y_min + box.y_max) / 2 * side))
    for letter, centre in zip(word.text, letter_centres(word.text), strict=True):
        slot = min(side * SLOTS - 1, int((box.x_min + centre * (box.x_max - box.x_min)) * side * SLOTS))
        classes[row, slot // SLOTS, 3 + slot % SLOTS] = ord(letter) - ord("A") + 1


@dataclass(frozen=True)
class GridMetrics:
    """Accuracy of the kind in cells of shapes and of letters, and the mean error of box sides, normalised to 0..1."""

    kind: float
    letter: float
    box: float


class GridHead(nn.Module):
    """One linear layer on the features of every cell."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.read = nn.Linear(width, sum(_CLASSES) + 4)

    def forward(self, features: Tensor, scenes: Sequence[Scene]) -> tuple[Tensor, GridMetrics]:
        """The loss and metrics of features ``[batch, side * side, width]`` for the batch's scenes."""
        cells = [label(scene, self.side) for scene in scenes]
        classes = torch.from_numpy(np.stack([one.classes for one in cells]))
        boxes = torch.from_numpy(np.stack([one.boxes for one in cells]))
        *logits, sides = self.read(features).float().split((*_CLASSES, 4), dim=-1)
        losses = [_class_loss(one, classes[..., index]) for index, one in enumerate(logits)]
        shape = classes[..., 0] > 0
        box_loss = F.smooth_l1_loss(sides[shape], boxes[shape], beta=0.1) if shape.any() else sides.sum() * 0
        return torch.stack(losses).sum() + 3 * box_loss, _metrics(logits, sides, classes, boxes)


def _class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    weight = torch.ones(logits.shape[-1])
    if logits.shape[-1] != len(BACKGROUNDS):
        weight[0] = 0.3  # most cells are empty
    return F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weight=weight)


@torch.no_grad()
def _metrics(logits: Sequence[Tensor], sides: Tensor, classes: Tensor, boxes: Tensor) -> GridMetrics:
    shape = classes[..., 0] > 0
    correct = [(one.argmax(-1) == classes[..., index])[classes[..., index] > 0] for index, one in enumerate(logits)]
    return GridMetrics(
        kind=share(correct[0]),
        letter=share(torch.cat(correct[3:])),
        box=float((sides[shape] - boxes[shape]).abs().mean()) / _BOX_SCALE if shape.any() else 0.0,
    )
