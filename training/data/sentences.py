"""Texts about a scene: captions of three lengths, phrases with the things they name, questions with their answers.

Articles and prepositions vary so that no trigram occurs twice in a text; :mod:`training.data.trigrams` says why.
Independent of tokenizers and of any model's format.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from training.data.scenes import Scene, Shape, Word
from training.data.shapes import COLOURS, KINDS
from training.data.trigrams import repeated, split

NUMBERS = ("zero", "one", "two", "three", "four", "five")
_ARTICLES_AND_PREPOSITIONS = (("a", "at"), ("one", "near"), ("another", "by"), ("a", "in"), ("one", "toward"))
_MAX_SIZES = 3
"""How many shapes of a detailed caption are described with their size; more would need more articles."""
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth")
_VERBS = ("sits", "is found", "lies", "rests", "stands")


@dataclass(frozen=True)
class Part:
    """A piece of a caption; ``thing`` is what it names, or None for the text between."""

    text: str
    thing: Shape | Word | None = None


Caption = tuple[Part, ...]


def plain(caption: Sequence[Part]) -> str:
    """The caption's text."""
    return "".join(part.text for part in caption)


def phrase(shape: Shape) -> str:
    """``"a red circle"``."""
    return f"{article(shape.name)} {shape.name}"


def article(words: str) -> str:
    """``"a"`` or ``"an"``."""
    return "an" if words[0] in "aeiou" else "a"


def word_phrase(word: Word) -> str:
    """``"the word STOP"``."""
    return f"the word {word.text}"


def caption(scene: Scene, tagged: Callable[[Part], str] | None = None, start: str = "") -> Caption:
    """One sentence without a full stop: up to three shapes, or the first and the last of more, and the word.

    Args:
        scene: The scene to describe.
        tagged: Writes a part with the tags of a model's format. A phrase that would repeat a trigram in the tagged
            text is worded differently (``"one red circle"``, ``"a circle in red"``). None: no tags.
        start: The text before the caption, in which trigrams count, too.
    """
    write = tagged or _untagged_text
    parts: list[Part] = []
    for piece in _skeleton(scene):
        before = start + "".join(map(write, parts))
        parts.append(Part(piece) if isinstance(piece, str) else _phrase_part(piece, before, write))
    return tuple(parts)


def detailed(scene: Scene) -> str:
    """A sentence with sizes, regions and the background."""
    if scene.inside:
        outer, inner = scene.shapes
        things = [f"a {outer.size} {outer.name} at the {outer.region} with one {inner.size} {inner.name} inside"]
    else:
        things = [f"{_described(index, shape)} {_ARTICLES_AND_PREPOSITIONS[index][1]} the {shape.region}"
                  for index, shape in enumerate(scene.shapes)]  # fmt: skip
    if scene.word:
        things.append(word_phrase(scene.word))
    return f"The image shows {_listed(things)} on a {scene.background} background."


def paragraph(scene: Scene) -> str:
    """Several short sentences, with the number of shapes first."""
    count = len(scene.shapes)
    verb, noun = ("is", "shape") if count == 1 else ("are", "shapes")
    lines = [f"The background is {scene.background}.", f"There {verb} {NUMBERS[count] if count else 'no'} {noun}."]
    for index, shape in enumerate(scene.shapes):
        where = f"{_VERBS[index]} {_ARTICLES_AND_PREPOSITIONS[index][1]} the {shape.region}"
        if scene.inside and index:
            where = f"{_VERBS[index]} inside it"
        lines.append(f"{_ORDINALS[index]}, {_described(index, shape)} {where}.")
    if scene.word:
        lines.append(f"The text reads {scene.word.text}.")
    return " ".join(lines)


def dense(shape: Shape) -> str:
    """A label with size, colour and kind: ``"large red circle"``."""
    return f"{shape.size} {shape.name}"


@dataclass(frozen=True)
class Question:
    """A question with its only right answer. ``kind`` groups questions of the same wording."""

    kind: str
    text: str
    answer: str


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Every question that has a single right answer, with one whether something is in the image."""
    kinds, colours = [shape.kind for shape in scene.shapes], [shape.colour for shape in scene.shapes]
    out = [Question("how many", "How many shapes are there?", NUMBERS[len(scene.shapes)])]
    out += [
        Question("what colour", f"What color is the {shape.kind}?", shape.colour)
        for shape in scene.shapes
        if kinds.count(shape.kind) == 1
    ]
    out += [
        Question("what shape", f"What shape is {shape.colour}?", shape.kind)
        for shape in scene.shapes
        if colours.count(shape.colour) == 1
    ]
    out += _relations(scene)
    out.append(_presence(scene, rng))
    if scene.word:
        out.append(Question("which word", "What is the word?", scene.word.text))
    return out


def relation(scene: Scene) -> tuple[Shape, str, Shape]:
    """Of a scene with two shapes: a shape, its relation to the other, and the other."""
    left, right = scene.shapes
    if scene.inside:
        return right, "inside", left
    across, down = right.centre.x - left.centre.x, right.centre.y - left.centre.y
    if across >= abs(down):
        return left, "left of", right
    return (left, "above", right) if down > 0 else (right, "above", left)


def _relations(scene: Scene) -> Iterator[Question]:
    if len(scene.shapes) == 2:
        first, name, second = relation(scene)
        yield Question("what relation", f"What is {name} the {second.name}?", phrase(first))


def _presence(scene: Scene, rng: random.Random) -> Question:
    """Half of the time about a shape that is in the image, otherwise about one that differs in colour or kind only."""
    present = [shape.name for shape in scene.shapes]
    if present and rng.random() < 0.5:
        name = rng.choice(present)
    else:
        shape = rng.choice(scene.shapes) if scene.shapes else None
        name = rng.choice([name for name in _similar_names(shape) if name not in present])
    return Question("is there", f"Is there {article(name)} {name}?", "yes" if name in present else "no")


def _similar_names(shape: Shape | None) -> list[str]:
    if shape is None:
        return [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    return [f"{shape.colour} {kind}" for kind in KINDS] + [f"{colour} {shape.kind}" for colour in COLOURS]


def _skeleton(scene: Scene) -> Iterator[str | Shape | Word]:
    shapes = scene.shapes
    if len(shapes) == 1:
        yield shapes[0]
    elif len(shapes) == 2:
        first, name, second = relation(scene)
        yield from (first, f" {name} ", second)
    elif len(shapes) == 3:
        yield from (shapes[0], ", ", shapes[1], " and ", shapes[2])
    elif shapes:
        yield from (f"{NUMBERS[len(shapes)]} shapes, from ", shapes[0], " at the left to ", shapes[-1], " on the right")
    if scene.word:
        yield from ((" with ",) if shapes else ())
        yield scene.word


def _phrase_part(thing: Shape | Word, before: str, write: Callable[[Part], str]) -> Part:
    """The first wording that repeats no trigram, or the first of all if every one does."""
    choices = [Part(text, thing) for text in _wordings(thing)]
    return next((part for part in choices if not repeated(split(before + write(part)))), choices[0])


def _wordings(thing: Shape | Word) -> Iterator[str]:
    if isinstance(thing, Word):
        yield word_phrase(thing)
        return
    articles = (article(thing.name), "one", "another")
    yield from (f"{word} {thing.name}" for word in articles)
    yield from (f"{word} {thing.kind} in {thing.colour}" for word in ("a", "one", "another"))


def _untagged_text(part: Part) -> str:
    return part.text


def _described(index: int, shape: Shape) -> str:
    if index < _MAX_SIZES:
        return f"{_ARTICLES_AND_PREPOSITIONS[index][0]} {dense(shape)}"
    word = _ARTICLES_AND_PREPOSITIONS[index][0]
    return f"{article(shape.name) if word == 'a' else word} {shape.name}"


def _listed(things: Sequence[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def untagged(text: str) -> str:
    """A text without its tags: a space in place of a tag, but none before a comma or a full stop."""
    words = re.sub(r"<[^<>]*>", " ", text)
    return re.sub(r"\s+([.,])", r"\1", " ".join(words.split()))
