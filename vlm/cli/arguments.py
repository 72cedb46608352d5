"""The command line of ``python -m vlm``: its options, its help, and the options that cannot be combined."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, get_args

from vlm.cli.paths import DRAWING_SUFFIXES
from vlm.cli.question import Numbers, Question
from vlm.errors import InvalidRequest
from vlm.models.cards import cards
from vlm.types import CaptionLength, Sampling, Task

BAD_INPUT = 2

_EXAMPLES = """\
examples:
  python -m vlm miniatures/florence-2-base photo.jpg --task detect --draw found.png
  python -m vlm miniatures/florence-2-base photos/ --task caption --length short -j > captions.jsonl
  python -m vlm miniatures/florence-2-base photo.jpg --task region_caption --region 0.1,0.2,0.5,0.6
  python -m vlm miniatures/moondream-2 photo.jpg --task detect --label dog --label cat --max-objects 5
  python -m vlm miniatures/moondream-2 photo.jpg --task query --prompt "How many dogs?" --reasoning
  python -m vlm miniatures/moondream-2 --prompt "What is a poodle?"

exit status: 0 all answered, 1 a failure, 2 bad input, 130 interrupted
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that was read.

    Attributes:
        checkpoint, revision, dtype, device: As for :func:`vlm.loading.load`.
        paths: Files and folders of images, as they were typed.
        question: What is asked about each image.
        json: Print JSON: the whole answer, its text and objects only, or None for plain text.
        draw: File or folder for the annotated images.
    """

    checkpoint: str
    revision: str | None
    dtype: str
    device: str
    paths: tuple[str, ...]
    question: Question
    json: Literal["whole", "compact"] | None
    draw: Path | None


def read_command(argv: Sequence[str] | None) -> Command:
    """Read a command line.

    Raises:
        InvalidRequest: An option has an impossible value, or two of them contradict each other.
        SystemExit: It cannot be read at all (status 2, one line on stderr), or asks for help.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.images and not options.prompt.strip():
        parser.error("name an image or a folder, or ask without one: --prompt TEXT")
    if not options.images and options.draw:
        parser.error("--draw needs an image to draw on")
    return Command(
        options.checkpoint, options.revision, options.dtype, options.device, tuple(options.images),
        _question(options), "compact" if options.compact else "whole" if options.json else None, options.draw,
    )  # fmt: skip


def _question(options: argparse.Namespace) -> Question:
    sampling = Sampling(
        max_tokens=options.max_tokens, temperature=options.temperature, top_p=options.top_p, seed=options.seed,
        num_beams=options.beams,
    )  # fmt: skip
    if options.task is None:
        _refuse_task_options(options)
        return Question(options.prompt, None, sampling)
    task = Task(
        options.task,
        tuple(options.label),  # its text is not set, since models read the prompt instead
        length=options.length or "normal",
        max_objects=options.max_objects,
        reasoning=options.reasoning,
        threshold=options.threshold,
    )
    return Question(options.prompt, task, sampling, options.region, tuple(options.reference))


def _refuse_task_options(options: argparse.Namespace) -> None:
    """Refuse options that only a named task reads, since they would be ignored silently."""
    names = ("label", "region", "length", "reasoning", "threshold", "max_objects", "reference")
    values = {name: getattr(options, name) for name in names}
    given = [
        f"--{name.replace('_', '-')}"
        for name, value in values.items()
        if not (value is None or value is False or value == [])  # 0 is a value: a threshold may be 0
    ]
    if given:
        raise InvalidRequest(f"{', '.join(given)}: only with a task, which --task names")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m vlm",
        description="Ask a vision-language model about images.",
        epilog=f"{_EXAMPLES}\n{_tasks()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="folder of a checkpoint, or its id on the Hugging Face hub")
    parser.add_argument(
        "images", nargs="*", metavar="image",
        help="PNG, JPEG, WebP, GIF or BMP file, or a folder of them; some models answer without one",
    )  # fmt: skip
    _add_question(parser.add_argument_group("question"))
    _add_sampling(parser.add_argument_group("decoding (default: as the checkpoint says)"))
    _add_output(parser.add_argument_group("output"))
    loading = parser.add_argument_group("loading")
    loading.add_argument("--revision", help="full commit hash of the checkpoint on the hub")
    loading.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    loading.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    return parser


def _tasks() -> str:
    """The tasks of every model that has a card, one model a paragraph."""
    lines = ["tasks:"]
    for name, card in sorted(cards().items()):
        tasks = ", ".join(task.name for task in card.tasks)
        lines += textwrap.wrap(f"  {name:<16} {tasks}", 100, subsequent_indent=" " * 19)
    return "\n".join(lines)


def _add_question(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompt", default="", help="native prompt, caption prefix, text to ground, or question")
    group.add_argument("--task", metavar="NAME", help="one of the tasks below; without it the prompt decides")
    group.add_argument("--label", action="append", default=[], help="what the task looks for (may be repeated)")
    group.add_argument("--region", type=box, metavar="X1,Y1,X2,Y2", help="where to look: 0 to 1, or pixels")
    group.add_argument(
        "--reference", type=_location, action="append", default=[], metavar="X,Y[,X2,Y2]",
        help="point or box that the question is about: 0 to 1, or pixels (may be repeated)",
    )  # fmt: skip
    group.add_argument("--length", choices=get_args(CaptionLength), help="length of a caption")
    group.add_argument("--reasoning", action="store_true", help="let the model reason before it answers")
    group.add_argument("--threshold", type=_from_0_to_1, help="leave out objects whose score is lower (0 to 1)")
    group.add_argument("--max-objects", type=_at_least_1, help="maximum number of objects of each label")


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--temperature", type=float, help="0 is greedy")
    group.add_argument("--top-p", type=float)
    group.add_argument("--seed", type=int)
    group.add_argument("--max-tokens", type=int, help="maximum number of tokens of an answer")
    group.add_argument("--beams", type=int, help="beam search with this many beams; 1 is none")


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-j", "--json", action="store_true", help="print one JSON object per image and line")
    group.add_argument("--compact", action="store_true", help="as --json, with the text and the objects only")
    group.add_argument(
        "--draw", type=_drawing, metavar="OUT.png",
        help="write the annotated image; several become OUT-NAME.png, or NAME.png if this is a folder",
    )  # fmt: skip


def box(text: str) -> Numbers:
    """A box as it is typed, ``x1,y1,x2,y2``. Raises ArgumentTypeError."""
    numbers = _numbers(text, (4,), "takes four numbers: x1,y1,x2,y2")
    x_min, y_min, x_max, y_max = numbers
    if not (0 <= x_min < x_max < float("inf") and 0 <= y_min < y_max < float("inf")):
        raise argparse.ArgumentTypeError("needs 0 <= x1 < x2 and 0 <= y1 < y2")
    return numbers


def _location(text: str) -> Numbers:
    numbers = _numbers(text, (2, 4), "takes two numbers (x,y) or four (x1,y1,x2,y2)")
    if len(numbers) == 4:
        return box(text)
    if not all(0 <= number < float("inf") for number in numbers):
        raise argparse.ArgumentTypeError("needs numbers of at least 0")
    return numbers


def _numbers(text: str, counts: tuple[int, ...], rule: str) -> Numbers:
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(rule) from None
    if len(numbers) not in counts:
        raise argparse.ArgumentTypeError(rule)
    return numbers


def _checked(convert: Callable[[str], float], holds: Callable[[float], bool], rule: str, text: str) -> float:
    try:
        number = convert(text)
    except ValueError:
        raise argparse.ArgumentTypeError(rule) from None
    if not holds(number):
        raise argparse.ArgumentTypeError(rule)
    return number


def _from_0_to_1(text: str) -> float:
    return _checked(float, lambda number: 0 <= number <= 1, "must be a number from 0 to 1", text)


def _at_least_1(text: str) -> int:
    return int(_checked(int, lambda number: number >= 1, "must be a whole number of at least 1", text))


def _drawing(text: str) -> Path:
    path = Path(text)
    if not path.is_dir() and path.suffix.lower() not in DRAWING_SUFFIXES:
        raise argparse.ArgumentTypeError(
            f"needs a folder, or a file name that ends in one of {', '.join(DRAWING_SUFFIXES)}"
        )
    return path
