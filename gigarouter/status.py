"""``gigarouter status``: what a running system does at this moment, as a table or as JSON.

    gigarouter status
    gigarouter status https://vision.example.com --json

An API key is read from GIGAROUTER_API_KEY, as ``gigarouter ask`` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2

from gigarouter.ask import KEY_VARIABLE, URL, URL_VARIABLE, address, default_url, headers, seconds
from gigarouter.table import table

Json = dict[str, Any]

FAILED = 1
TITLES = ("MODEL", "READY", "REPLICAS", "PLACES", "QUEUE", "LAST ERROR")
TIMEOUT_S = 10.0


def parser(program: str = "gigarouter status") -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Print the state of a running system: models, replicas, what waits, and the last errors.",
        epilog=f"An API key is read from {KEY_VARIABLE}. Exit status: 0 all required models can answer, 1 some cannot "
        "or nothing answers, 2 bad input.",
    )
    parser.add_argument(
        "url", nargs="?", type=address, default=default_url(), help=f"of the router (default: {URL_VARIABLE}, or {URL})"
    )
    parser.add_argument("--json", action="store_true", help="what the router says, as it says it")
    parser.add_argument("--timeout", type=seconds, default=TIMEOUT_S, metavar="SECONDS", help="maximum wait")
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "gigarouter status") -> int:
    """Ask, print, and return the exit status."""
    return asyncio.run(show(parser(program).parse_args(arguments)))


async def show(options: argparse.Namespace, transport: httpx2.AsyncBaseTransport | None = None) -> int:
    """Ask and print; ``transport`` replaces the network."""
    status = await _ask(options, transport)
    if isinstance(status, str):
        print(f"error: {status}", file=sys.stderr)
        return FAILED
    print(json.dumps(status, indent=2) if options.json else "\n".join(lines_of(status)))
    return 0 if status["ready"] else FAILED


async def _ask(options: argparse.Namespace, transport: httpx2.AsyncBaseTransport | None) -> Json | str:
    """The status, or why there is none."""
    try:
        async with httpx2.AsyncClient(headers=headers(), timeout=options.timeout, transport=transport) as client:
            response = await client.get(f"{options.url.rstrip('/')}/v1/status")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        return f"{options.url} cannot be asked ({reason}). Is it running? gigarouter serve starts it."
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, dict) and answer.get("object") == "status":
        return answer
    refused = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(refused, dict):
        return f"{options.url} answers with {response.status_code}: {refused.get('message')}"
    return f"what answered at {options.url} with {response.status_code} is not gigarouter; check the URL"


def lines_of(status: Json) -> list[str]:
    """What people read: a line for the whole, a table of the models, and the errors of none of them."""
    now = status["now"]
    models = status["models"]
    able = sum(model["ready"] for model in models)
    whole = "ready" if status["ready"] else "NOT READY"
    lines = [f"{whole}: {able} of {len(models)} models can answer; counting for {_age(now - status['started_at'])}", ""]
    lines += table(TITLES, [_row(model, now) for model in models])
    lines += [f"{one['id']}: {one['detail']}" for one in models if not one["ready"]]
    other = _last_error(status["errors"], now)
    return [*lines, *([] if other == "-" else [f"of requests for no model: {other}"])]


def _row(model: Mapping[str, Any], now: int) -> tuple[str, ...]:
    ready = "yes" if model["ready"] else "NO" if model["required"] else "no"
    places, queue_s = model["places"], model["queue_s"]
    held = f"{places['held']} of {places['limit']}"
    queue = "?" if queue_s is None else f"{queue_s:.1f} s"
    return (model["id"], ready, _states(model["replicas"]), held, queue, _last_error(model["errors"], now))


def _states(replicas: Iterable[Mapping[str, Any]]) -> str:
    counts = Counter(one["state"] for one in replicas)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _last_error(errors: Sequence[Mapping[str, Any]], now: int) -> str:
    """The latest of its code, how often it was answered, and a time that people can compare with a log."""
    if not errors:
        return "-"
    last = errors[0]
    at = datetime.fromtimestamp(last["last_at"], UTC)
    return f"{last['code']} x{last['count']}, last {_age(now - last['last_at'])} ago ({at:%Y-%m-%d %H:%M:%S}Z)"


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{max(0, seconds)} s"


if __name__ == "__main__":
    sys.exit(main())
