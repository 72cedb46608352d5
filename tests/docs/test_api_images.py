"""What docs/api.md says about images is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile_images import png_of
from vlm.errors import InvalidImage
from vlm.image.limits import ImageLimits
from vlm.image.scan import FORMATS, bmp, scan

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text("utf-8")
SECTION = PAGE[PAGE.index("### Images") : PAGE.index("\n## Tasks\n")]
ROWS = dict(re.findall(r"^\| ([a-z].*?) \| (.*?) \|", SECTION, re.MULTILINE))
LIMITS = ImageLimits()


def test_the_limits_are_those_of_the_code() -> None:
    values = [
        f"{LIMITS.max_bytes >> 20} MiB",
        f"{LIMITS.max_pixels:,} pixels",
        f"{LIMITS.max_side:,} pixels",
        f"{LIMITS.min_side} pixel",
        f"{LIMITS.max_scans};",
        f"{LIMITS.max_chunks:,}",
        f"{LIMITS.max_blocks:,}",
        f"{bmp.MAX_RLE_PIXELS:,} of each",
    ]
    stated = [value for name, value in ROWS.items() if name != "limit"]
    assert len(stated) == len(values)
    for is_stated, value in zip(stated, values, strict=True):
        assert is_stated.startswith(value)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_named(name: str) -> None:
    assert {"WEBP": "WebP"}.get(name, name) in PAGE[: PAGE.index("### Images")]


@pytest.mark.parametrize(
    ("words", "data", "limits"),
    [
        ("bytes of the file", png_of(9, 9), ImageLimits(max_bytes=50)),
        ("width times height", png_of(9, 9), ImageLimits(max_pixels=80)),
        ("longest side", png_of(9, 9), ImageLimits(max_side=8)),
        ("shortest side", png_of(9, 9), ImageLimits(min_side=10)),
        ("chunks of a PNG", png_of(9, 9), ImageLimits(max_chunks=2)),
    ],
)
def test_the_codes_are_those_of_the_code(words: str, data: bytes, limits: ImageLimits) -> None:
    (row,) = [line for line in SECTION.splitlines() if line.startswith(f"| {words}")]
    with pytest.raises(InvalidImage) as caught:
        scan(data, limits)
    assert row.endswith(f"| `{caught.value.code}` |")
