"""``gigarouter ask``: questions to a running system about images, in the router's chat format.

    gigarouter ask photo.jpg --model florence-2-base --task detect
    gigarouter ask photos/*.jpg --model moondream-2 --prompt "How many dogs?" --json > answers.jsonl
    gigarouter ask photo.jpg --model compare --also florence-2-base --also moondream-2 --task caption
    gigarouter ask photo.jpg --model florence-2-base --task detect --then moondream-2:query:"What is it?"

Each image is a request of its own, and several are asked about at a time; answers are printed in the order of the
images. An API key is read from GIGAROUTER_API_KEY, so that it stands in no list of processes.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from vlm.cli.arguments import box

URL = "http://127.0.0.1:8000"
KEY_VARIABLE, URL_VARIABLE = "GIGAROUTER_API_KEY", "GIGAROUTER_URL"
AT_ONCE = 8
FAILED, BAD_INPUT = 1, 2

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no answer.

    Attributes:
        message: In words, for people.
        status: The exit status that it calls for.
        error: The router's error object, where it is the router's.
    """

    message: str
    status: int = FAILED
    error: Mapping[str, Any] | None = None


def parser(program: str = "gigarouter ask") -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Ask a running system about images.",
        epilog=f"An API key is read from {KEY_VARIABLE}. Exit status: 0 all answered, 1 a failure, 2 bad input.",
    )
    parser.add_argument("images", nargs="*", type=Path, metavar="image", help="image files; each is asked about alone")
    parser.add_argument("--model", "-m", required=True, help="a name from /v1/models, or auto or compare")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="MODEL",
        help="asked if the one before cannot answer, or compared",
    )
    parser.add_argument("--prefer", choices=("good", "cheap", "fast"), help="by what --model auto chooses")
    parser.add_argument("--max-price", type=float, metavar="DOLLARS", help="for an image; dearer models are left out")
    parser.add_argument("--dry-run", action="store_true", help="say who would be asked, and at which price")
    parser.add_argument(
        "--then",
        action="append",
        default=[],
        type=step,
        metavar="MODEL:TASK[:TEXT]",
        help="asked about each object that was found (repeatable)",
    )
    parser.add_argument("--crop", type=float, help="for --then: times the object's size, from 1 to 8 (default: 1)")
    parser.add_argument("--prompt", "-p", default="", help="the question, or what the model's task needs")
    parser.add_argument("--task", "-t", help="such as caption, detect, ocr, query; without it the prompt decides")
    parser.add_argument("--label", action="append", default=[], help="what the task looks for (may be repeated)")
    parser.add_argument("--region", type=box, metavar="X1,Y1,X2,Y2", help="where to look, from 0 to 1")
    parser.add_argument("--length", choices=("short", "normal", "long"), help="of a caption")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--json", action="store_true", help="the router's whole answer, one line an image")
    parser.add_argument(
        "--url", type=address, default=default_url(), help=f"of the router (default: {URL_VARIABLE}, or {URL})"
    )
    parser.add_argument("--timeout", type=seconds, default=120, metavar="SECONDS", help="maximum wait for an answer")
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "gigarouter ask") -> int:
    """Ask, print, and return the exit status."""
    own = parser(program)
    options = own.parse_args(arguments)
    if not options.images and not options.prompt.strip():
        own.error("name an image, or ask without one: --prompt TEXT")
    if options.task is None and (options.label or options.region or options.length):
        own.error("--label, --region and --length belong to a task, which --task names")
    if options.then and options.task is None:
        own.error("--then is about what --task finds")
    if options.crop is not None and not options.then:
        own.error("--crop belongs to --then")
    return asyncio.run(ask_all(options))


def step(text: str) -> Json:
    """A further step of a pipeline: ``MODEL:TASK`` or ``MODEL:TASK:TEXT``."""
    model, _, rest = text.partition(":")
    name, _, words = rest.partition(":")
    if not model or not name:
        raise argparse.ArgumentTypeError("must be MODEL:TASK or MODEL:TASK:TEXT")
    return {"model": model, "task": {"name": name, "text": words} if words else name, "for_each": "objects"}


async def ask_all(options: argparse.Namespace, transport: httpx2.AsyncBaseTransport | None = None) -> int:
    """Ask about each image and print the answers in order; ``transport`` replaces the network."""
    images: Sequence[Path | None] = options.images or [None]
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx2.AsyncClient(
        base_url=options.url, headers=headers(), timeout=options.timeout, transport=transport
    ) as client:
        answers = [asyncio.create_task(_answer(client, options, image, gate)) for image in images]
        statuses = [_show(await answer, image, options) for image, answer in zip(images, answers, strict=True)]
    return FAILED if FAILED in statuses else max(statuses)


def default_url() -> str:
    """Where the router is, unless an argument says it."""
    return os.environ.get(URL_VARIABLE, URL)


def address(text: str) -> str:
    """An argument that says where the router is.

    Raises:
        ArgumentTypeError: It is no URL of a server.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL of a router, such as {URL}")
    return text


def seconds(text: str) -> float:
    """An argument that says how long to wait.

    Raises:
        ArgumentTypeError: It is no time above 0.
    """
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return found


def headers() -> dict[str, str]:
    """Those that say who asks."""
    key = os.environ.get(KEY_VARIABLE)
    return {"authorization": f"Bearer {key}"} if key else {}


def body_of(options: argparse.Namespace, image: bytes | None) -> Json:
    """The request about one image."""
    content: list[Json] = []
    if image is not None:
        encoded = base64.b64encode(image).decode()
        content.append({"type": "image_url", "image_url": {"url": f"data:application/octet-stream;base64,{encoded}"}})
    if options.prompt:
        content.append({"type": "text", "text": options.prompt})
    body: Json = {"model": options.model, "messages": [{"role": "user", "content": content}]}
    if options.task is not None:
        task = {
            "name": options.task,
            "labels": options.label or None,
            "region": options.region and {"box": list(options.region)},
            "length": options.length,
        }
        body["task"] = {name: value for name, value in task.items() if value is not None}
    chosen = {
        "models": options.also or None,
        "prefer": options.prefer,
        "max_price": None if options.max_price is None else {"image": options.max_price},
        "dry_run": options.dry_run or None,
    }
    body |= {name: value for name, value in chosen.items() if value is not None}
    if options.then:
        crop = {} if options.crop is None else {"crop": options.crop}
        first = {"model": options.model, "task": body.pop("task")}
        body |= {"model": "pipeline", "pipeline": [first, *({**one, **crop} for one in options.then)]}
    sampling = {name: getattr(options, name) for name in ("max_tokens", "temperature", "seed")}
    return body | {name: value for name, value in sampling.items() if value is not None}


async def _answer(
    client: httpx2.AsyncClient, options: argparse.Namespace, image: Path | None, gate: asyncio.Semaphore
) -> Json | Problem:
    async with gate:
        try:
            content = None if image is None else await asyncio.to_thread(image.read_bytes)
        except OSError as error:
            return Problem(f"cannot be read: {error.strerror}", BAD_INPUT)
        try:
            response = await client.post("/v1/chat/completions", json=body_of(options, content))
        except httpx2.TimeoutException:
            return Problem(f"no answer came within {options.timeout:g} s; --timeout sets another limit")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return Problem(f"{options.url} cannot be asked ({error}). Is it running? gigarouter serve starts it.")
    return _read(response)


def _read(response: httpx2.Response) -> Json | Problem:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return Problem(f"what answered with {response.status_code} is not gigarouter; check --url")
    error = found.get("error")
    if not isinstance(error, dict):
        return found
    wait = response.headers.get("retry-after")
    hint = f" Try again in {wait} s." if wait else ""
    client_error = 400 <= response.status_code < 500
    return Problem(f"{error.get('message')}{hint}", BAD_INPUT if client_error else FAILED, error)


def _show(answer: Json | Problem, image: Path | None, options: argparse.Namespace) -> int:
    """Print an answer, or why there is none; returns the exit status that it calls for."""
    name = None if image is None else str(image)
    if isinstance(answer, Problem):
        print(f"error: {name}: {answer.message}" if name else f"error: {answer.message}", file=sys.stderr, flush=True)
        if options.json:
            print(json.dumps({"image": name, "error": answer.error or {"message": answer.message}}), flush=True)
        return answer.status
    if options.json:
        print(json.dumps({"image": name, **answer}, ensure_ascii=False), flush=True)
        return 0
    prefix = f"{name}: " if len(options.images) > 1 else ""
    print("\n".join(f"{prefix}{line}" for line in lines_of(answer)), flush=True)
    return 0


def lines_of(answer: Json) -> list[str]:
    """What people read: the text, and a line for each object; of several models, each line with the model's name."""
    choices = answer["choices"]
    if not any("model" in choice for choice in choices):
        return _lines_of(choices[0]["message"])
    return [f"{choice['model']}: {line}" for choice in choices for line in _lines_of(choice["message"])]


def _lines_of(message: Mapping[str, Any]) -> list[str]:
    grounding = message.get("grounding") or {"text": message.get("content")}  # the content has geometry as JSON
    objects = grounding.get("objects") or []
    text = grounding.get("text") or ""
    return [*([text] if text or not objects else []), *(line for one in objects for line in _object_lines(one))]


def _object_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """An object, and below it what was asked about it."""
    yield _object_line(found)
    for answer in found.get("answers") or []:
        error = answer.get("error")
        said = [f"error: {error['message']}"] if error else [answer["text"]] if answer.get("text") else []
        yield from (f"  {answer['model']}: {line}" for line in said)
        yield from (f"  {line}" for inner in answer.get("objects") or [] for line in _object_lines(inner))


def _object_line(found: Mapping[str, Any]) -> str:
    name = found.get("label") or found.get("text") or found.get("kind")
    place = found.get("point") or found.get("box") or []
    score = found.get("score")
    where = f"{found.get('kind')} {','.join(f'{number:.3f}' for number in place)}"
    return "  ".join([str(name), where, *([] if score is None else [f"score {score:.2f}"])])


if __name__ == "__main__":
    sys.exit(main())
