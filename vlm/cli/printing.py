"""What is printed about each answer: plain text or JSON on stdout, errors and notes on stderr, and drawings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlm.cli.arguments import BAD_INPUT, Command
from vlm.cli.paths import read
from vlm.cli.wording import in_shell_words, options_of
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, VlmError
from vlm.grounding_json import objects_json, to_json
from vlm.image.annotate import draw
from vlm.image.decode import decode
from vlm.types import Completion, Detection, Grounding, Point

FAILED = 1


def print_error(error: VlmError, image: str | None = None) -> int:
    """Print one line on stderr; returns the exit code that the error calls for."""
    message = in_shell_words(error)
    print(f"error: {image}: {message}" if image else f"error: {message}", file=sys.stderr, flush=True)
    return BAD_INPUT if isinstance(error, InvalidRequest) else FAILED


@dataclass
class Output:
    """Prints the answers about ``images`` in order, and errors and notes about the question once.

    Attributes:
        command: The command line.
        images: The paths of the images; empty if the question is about none.
        drawings: The path of each image's drawing; empty if none are asked for.
        codes: The exit code that each answer calls for.
    """

    command: Command
    images: Sequence[str]
    drawings: Sequence[Path] = ()
    codes: list[int] = field(default_factory=list)
    _repeated: dict[str, int] = field(default_factory=dict)
    _notes: set[str] = field(default_factory=set)

    def show(self, answer: Completion | VlmError, index: int) -> None:
        """Print the answer about image number ``index``, and draw it if asked."""
        image = self.images[index] if self.images else None
        if self.command.json:
            print(json.dumps({"image": image, **self._as_json(answer)}, ensure_ascii=False), flush=True)
        if isinstance(answer, VlmError):
            self._show_error(answer, image)
            return
        self._note(answer)
        if not self.command.json:
            print("\n".join(_lines(answer, image if len(self.images) > 1 else None)), flush=True)
        self.codes.append(self._draw(answer.grounding, index) if self.drawings else 0)

    def finish(self) -> int:
        """Count the errors that were printed for the first image only; returns the program's exit code."""
        for message, count in self._repeated.items():
            if count > 1:
                print(f"error: the same for {count - 1} more images: {message}", file=sys.stderr, flush=True)
        return FAILED if FAILED in self.codes else max(self.codes)

    def _show_error(self, error: VlmError, image: str | None) -> None:
        """Print the error; one that is about the question, and so the same for every image, is printed only once."""
        of_question = isinstance(error, InvalidRequest) and not isinstance(error, InvalidImage)
        if of_question:
            message = in_shell_words(error)
            self._repeated[message] = self._repeated.get(message, 0) + 1
            if self._repeated[message] > 1:
                self.codes.append(BAD_INPUT)
                return
        self.codes.append(print_error(error, image))

    def _note(self, answer: Completion) -> None:
        if answer.ignored:
            self._note_once(f"note: this task does not use {options_of(answer.ignored)}")
        dropped = answer.grounding.below_threshold
        if dropped and not self.command.json:
            objects = "1 object" if dropped == 1 else f"{dropped} objects"
            print(f"note: --threshold left out {objects}", file=sys.stderr, flush=True)

    def _note_once(self, line: str) -> None:
        if line not in self._notes:
            self._notes.add(line)
            print(line, file=sys.stderr, flush=True)

    def _as_json(self, answer: Completion | VlmError) -> dict[str, Any]:
        if isinstance(answer, VlmError):
            return {"error": {"message": answer.message, "param": answer.param, "code": answer.code}}
        if self.command.json == "compact":
            return {"text": answer.text if answer.has_text else None, **objects_json(answer.grounding)}
        return {
            "text": answer.text,
            "token_ids": list(answer.token_ids),
            "grounding": to_json(answer.grounding),
            "finish_reason": answer.finish_reason,
            "usage": asdict(answer.usage),
            "timings": {name: value for name, value in asdict(answer.timings).items() if name != "encode_ms"},
        }

    def _draw(self, grounding: Grounding, index: int) -> int:
        path = self.drawings[index]
        try:
            draw(decode(read(self.images[index])), grounding).save(path)
        except InvalidImage as error:  # the file has changed since the model got it
            return print_error(error, self.images[index])
        except OSError as error:
            reason = error.strerror or "the encoder failed"
            return print_error(EngineFailure(f"{path} cannot be written ({reason})"))
        return 0


def _lines(answer: Completion, image: str | None) -> list[str]:
    """The text, or one line for each object; ``image`` is the name to print before them, if any."""
    found = answer.grounding.detections
    size = answer.grounding.image_size or (1, 1)
    names = [" ".join((thing.label or thing.text or "-").split()) for thing in found]
    width = max(map(len, names), default=0)
    lines = [f"{name:<{width}}  {_pixels(thing, size)}" for name, thing in zip(names, found, strict=True)]
    if answer.reasoning is not None:
        lines = [f"reasoning: {answer.reasoning.strip()}", answer.text, *lines]
    if not lines:
        text = answer.text or "nothing found"
        return [f"{image}: {text}" if image else text]
    return [f"{image}:", *(f"  {line}" for line in lines)] if image else lines


def _pixels(thing: Detection, size: tuple[int, int]) -> str:
    box, point = thing.box, thing.point
    corners = (point,) if point or not box else (Point(box.x_min, box.y_min), Point(box.x_max, box.y_max))
    numbers = [value for corner in corners if corner for value in (corner.x * size[0], corner.y * size[1])]
    return " ".join(f"{round(number):>5}" for number in numbers)
