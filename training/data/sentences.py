"""What is said about a scene: captions of three lengths, phrases with their things, questions with their answers.

Owns the wording. It varies articles and prepositions so that no run of three words occurs twice in a text
(:mod:`training.data.trigrams` says why). Knows no tokens and no model's format.
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
_PLACED = (("a", "at"), ("one", "near"), ("another", "by"), ("a", "in"), ("one", "toward"))
_SIZED = 3
"""So many shapes of a detailed caption have their size told; more would need more articles."""
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth")
_VERBS = ("sits", "is found", "lies", "rests", "stands")


@dataclass(frozen=True)
class Part:
    """A piece of a caption; ``thing`` is what it names, None for the words between."""

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


def caption(scene: Scene, tagged: Callable[[Part], str] | None = None, begun: str = "") -> Caption:
    """One sentence without its stop: every shape of up to three, the first and the last of more, and the word.

    Args:
        scene: What is told.
        tagged: How a phrase is written in the text that must not repeat a run of three; where a phrase would, it is
            worded in another way (``"one red circle"``, ``"a circle in red"``). None: the words alone.
        begun: What stands before the caption in that text.
    """
    written = tagged or _bare
    told: list[Part] = []
    for piece in _skeleton(scene):
        told.append(
            Part(piece) if isinstance(piece, str) else _worded(piece, begun + "".join(map(written, told)), written)
        )
    return tuple(told)


def detailed(scene: Scene) -> str:
    """A sentence with sizes, regions and the background."""
    if scene.inside:
        outer, inner = scene.shapes
        things = [f"a {outer.size} {outer.name} at the {outer.region} with one {inner.size} {inner.name} inside"]
    else:
        things = [f"{_described(index, shape)} {_PLACED[index][1]} the {shape.region}"
                  for index, shape in enumerate(scene.shapes)]  # fmt: skip
    if scene.word:
        things.append(word_phrase(scene.word))
    return f"The image shows {_listed(things)} on a {scene.background} background."


def paragraph(scene: Scene) -> str:
    """The same in short sentences, the number of shapes first."""
    count = len(scene.shapes)
    verb, noun = ("is", "shape") if count == 1 else ("are", "shapes")
    lines = [f"The background is {scene.background}.", f"There {verb} {NUMBERS[count] if count else 'no'} {noun}."]
    for index, shape in enumerate(scene.shapes):
        where = f"{_VERBS[index]} {_PLACED[index][1]} the {shape.region}"
        if scene.inside and index:
            where = f"{_VERBS[index]} inside it"
        lines.append(f"{_ORDINALS[index]}, {_described(index, shape)} {where}.")
    if scene.word:
        lines.append(f"The text reads {scene.word.text}.")
    return " ".join(lines)


def dense(shape: Shape) -> str:
    """A label that says all about one shape: ``"large red circle"``."""
    return f"{shape.size} {shape.name}"


@dataclass(frozen=True)
class Question:
    """A question with its one right answer. ``kind`` groups questions of one wording."""

    kind: str
    text: str
    answer: str


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """Every question that has one answer, and one of several that ask whether something is there."""
    asked = [Question("how many", "How many shapes are there?", NUMBERS[len(scene.shapes)])]
    asked += [Question("what colour", f"What color is the {shape.kind}?", shape.colour)
              for shape in scene.shapes if _alone(shape.kind, [other.kind for other in scene.shapes])]  # fmt: skip
    asked += [Question("what shape", f"What shape is {shape.colour}?", shape.kind)
              for shape in scene.shapes if _alone(shape.colour, [other.colour for other in scene.shapes])]  # fmt: skip
    asked += _relations(scene)
    asked.append(_presence(scene, rng))
    if scene.word:
        asked.append(Question("which word", "What is the word?", scene.word.text))
    return asked


def relation(scene: Scene) -> tuple[Shape, str, Shape]:
    """Of a scene with two shapes: the first, how it stands to the second, the second."""
    left, right = scene.shapes
    if scene.inside:
        return right, "inside", left
    across, down = right.centre.x - left.centre.x, right.centre.y - left.centre.y
    if across >= abs(down):
        return left, "left of", right
    return (left, "above", right) if down > 0 else (right, "above", left)


def _relations(scene: Scene) -> Iterator[Question]:
    if len(scene.shapes) == 2:
        first, how, second = relation(scene)
        yield Question("what relation", f"What is {how} the {second.name}?", phrase(first))


def _presence(scene: Scene, rng: random.Random) -> Question:
    """Half of the time something that is there; else a near miss: another colour or another kind of it."""
    there = [shape.name for shape in scene.shapes]
    if there and rng.random() < 0.5:
        name = rng.choice(there)
    else:
        like = rng.choice(scene.shapes) if scene.shapes else None
        name = rng.choice([name for name in _near(like) if name not in there])
    return Question("is there", f"Is there {article(name)} {name}?", "yes" if name in there else "no")


def _near(shape: Shape | None) -> list[str]:
    if shape is None:
        return [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    return [f"{shape.colour} {kind}" for kind in KINDS] + [f"{colour} {shape.kind}" for colour in COLOURS]


def _alone(fact: str, facts: Sequence[str]) -> bool:
    return facts.count(fact) == 1


def _skeleton(scene: Scene) -> Iterator[str | Shape | Word]:
    shapes = scene.shapes
    if len(shapes) == 1:
        yield shapes[0]
    elif len(shapes) == 2:
        first, how, second = relation(scene)
        yield from (first, f" {how} ", second)
    elif len(shapes) == 3:
        yield from (shapes[0], ", ", shapes[1], " and ", shapes[2])
    elif shapes:
        yield from (f"{NUMBERS[len(shapes)]} shapes, from ", shapes[0], " at the left to ", shapes[-1], " on the right")
    if scene.word:
        yield from ((" with ",) if shapes else ())
        yield scene.word


def _worded(thing: Shape | Word, before: str, written: Callable[[Part], str]) -> Part:
    """The first wording that repeats nothing; the plainest where none is left."""
    choices = [Part(text, thing) for text in _wordings(thing)]
    return next((part for part in choices if not repeated(split(before + written(part)))), choices[0])


def _wordings(thing: Shape | Word) -> Iterator[str]:
    if isinstance(thing, Word):
        yield word_phrase(thing)
        return
    articles = (article(thing.name), "one", "another")
    yield from (f"{word} {thing.name}" for word in articles)
    yield from (f"{word} {thing.kind} in {thing.colour}" for word in ("a", "one", "another"))


def _bare(part: Part) -> str:
    return part.text


def _described(index: int, shape: Shape) -> str:
    if index < _SIZED:
        return f"{_PLACED[index][0]} {dense(shape)}"
    word = _PLACED[index][0]
    return f"{article(shape.name) if word == 'a' else word} {shape.name}"


def _listed(things: Sequence[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def untagged(text: str) -> str:
    """A text without its tags; words that tags kept apart stay apart, signs do not."""
    words = re.sub(r"<[^<>]*>", " ", text)
    return re.sub(r"\s+([.,])", r"\1", " ".join(words.split()))
