"""docs/security.md lists every limit with its number: its tables are compared with the code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from deployments.local import object_store
from router.asgi.body import MAX_JSON_DEPTH, MAX_JSON_ITEMS
from router.config import RouterConfig
from router.conversation.fields import MAX_LABELS, MAX_REFERENCES
from router.fetch import fetcher, pinned, resolver, turns, url
from router.files import objects, routes, store, sweeper, upload
from vlm.engine.blocks import MAX_BEAMS
from vlm.engine.config import EngineConfig
from vlm.generations import MAX_GENERATIONS
from vlm.image.decode import ImageLimits
from vlm.types import MAX_TASKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)
NUMBER = re.compile(r"([\d,.]+)(?: (KiB|MiB|GiB|s))?")
UNITS = {"": 1, "s": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

Limits = Mapping[str, float]


def numbers(settings: Mapping[str, object]) -> Limits:
    """Those that are limits; a bool is a switch."""
    return {
        name: value
        for name, value in settings.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def defaults(kind: type) -> Limits:
    """Name and default of every limit in a dataclass."""
    return numbers({field.name: field.default for field in dataclasses.fields(kind)})


WORDS = {
    "MAX_JSON_DEPTH": MAX_JSON_DEPTH,
    "MAX_JSON_ITEMS": MAX_JSON_ITEMS,
    "MAX_TASKS": MAX_TASKS,
    "MAX_LABELS": MAX_LABELS,
    "MAX_REFERENCES": MAX_REFERENCES,
    "MAX_GENERATIONS": MAX_GENERATIONS,
    "MAX_BEAMS": MAX_BEAMS,
}
SECTIONS: Mapping[str, Limits] = {
    "Of the router": numbers({name: field.default for name, field in RouterConfig.model_fields.items()}),
    "Of a download": {
        "MAX_URL_CHARS": url.MAX_URL_CHARS,
        "MAX_REDIRECTS": fetcher.MAX_REDIRECTS,
        "MAX_ADDRESSES": pinned.MAX_ADDRESSES,
        "LOOKUPS": resolver.LOOKUPS,
        "WAIT_S": turns.WAIT_S,
        "CONNECT_S": fetcher.CONNECT_S,
        "READ_S": fetcher.READ_S,
        "MAX_HEAD_BYTES": fetcher.MAX_HEAD_BYTES,
        "MAX_SMALL_PARTS": fetcher.MAX_SMALL_PARTS,
    },
    "Of an upload": {
        "MAX_FORM_PARTS": upload.MAX_FORM_PARTS,
        "MAX_PART_HEADERS": upload.MAX_PART_HEADERS,
        "MAX_PART_HEADER_BYTES": upload.MAX_PART_HEADER_BYTES,
        "MAX_FIELD_BYTES": upload.MAX_FIELD_BYTES,
        "MAX_FILENAME_CHARS": upload.MAX_FILENAME_CHARS,
        "MAX_PAGE": routes.MAX_PAGE,
        "PARALLEL": store.PARALLEL,
        "TIMEOUT_S": objects.TIMEOUT_S,
        "CONNECT_TIMEOUT_S": objects.CONNECT_TIMEOUT_S,
        "MAX_RETRIES": objects.MAX_RETRIES,
        "SWEEP_S": sweeper.SWEEP_S,
        "LEFT_BEHIND_S": store.LEFT_BEHIND_S,
    },
    "Of an image": defaults(ImageLimits),
    "Of an engine": defaults(EngineConfig),
    "Of the words of a request": WORDS,
    "Of the machine under `make serve`": numbers(
        {name: getattr(object_store, name) for name in ("BYTES", "MIN_BYTES")}
    ),
}


@cache
def listed(section: str) -> Limits:
    """Name and number of each row below a heading."""
    return dict(rows(PAGE.partition(f"\n### {section}\n")[2].partition("\n#")[0]))


def rows(text: str) -> Iterator[tuple[str, float]]:
    for name, cell in ROW.findall(text):
        found = NUMBER.fullmatch(cell.strip())
        assert found, f"{name}: {cell!r} is not a number with a unit of {', '.join(UNITS)}"
        yield name, float(found[1].replace(",", "")) * UNITS[found[2] or ""]


@pytest.mark.parametrize(("section", "name"), [(section, name) for section in SECTIONS for name in SECTIONS[section]])
def test_every_limit_is_listed_with_its_number(section: str, name: str) -> None:
    assert name in listed(section), f"docs/security.md: {name} is missing below {section!r}"
    assert listed(section)[name] == SECTIONS[section][name]


@pytest.mark.parametrize("section", SECTIONS)
def test_nothing_is_listed_that_is_gone(section: str) -> None:
    assert listed(section).keys() <= SECTIONS[section].keys()


def test_numbers_are_read_with_their_units() -> None:
    text = "| `a` | 30 MiB | x |\n| `b` | 40,000,000 | x |\n| `c` | 7.5 s | x |\n| name | 2 | x |"
    assert dict(rows(text)) == {"a": 30 * 2**20, "b": 40_000_000, "c": 7.5}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml))`", PAGE))))
def test_the_files_that_it_names_exist(path: str) -> None:
    assert (ROOT / path).is_file()
