"""Files that were made to do harm: an image or a typed refusal, from the scan, from the router and from the decoder.

``IMAGE_MUTATIONS`` sets the number of mutated files, of which there are few by default: see docs/development.md.
"""

from __future__ import annotations

import os
import zlib

import pytest

from router.images import read_image
from tests.hostile_images import CLASSES, Files
from tests.images import data_url
from tests.mutations import mutations
from vlm.errors import InvalidImage
from vlm.image.decode import decode
from vlm.image.limits import ImageLimits
from vlm.image.scan import scan

MUTATIONS = int(os.environ.get("IMAGE_MUTATIONS", "1500"))
SEED = int(os.environ.get("IMAGE_MUTATIONS_SEED", "0"))
CODES = {
    "empty_image_file", "image_too_large", "image_too_small", "image_parse_error", "invalid_image",
    "invalid_image_format",
}  # fmt: skip
READ = {"good": 1.0, "metadata": 1.0}  # share of the files that are images; others have some of both


def _size_or_refusal(data: bytes) -> tuple[int, int] | None:
    """The size on which router, scan and decoder agree; None if one of them refuses the image."""
    code = None
    try:
        size = scan(read_image(data_url(data), ImageLimits(), "here")).size
        image = decode(data)
    except InvalidImage as error:
        code = error.code
    if code is not None:
        assert code in CODES
        return None
    assert (image.size, image.mode) == (size, "RGB")
    return size


@pytest.mark.parametrize("name", CLASSES)
def test_every_file_is_an_image_or_a_refusal(name: str) -> None:
    files = CLASSES[name]()
    read = sum(_size_or_refusal(data) is not None for data in files.values())
    assert 0 < read <= len(files)
    assert READ.get(name, read / len(files)) == read / len(files)


def test_there_are_hundreds_and_always_the_same() -> None:
    assert sum(len(make()) for make in CLASSES.values()) >= 900
    assert _checksum(CLASSES["flips"]()) == _checksum(CLASSES["flips"]())
    assert [*mutations(20)] == [*mutations(20)] != [*mutations(20, seed=1)]


def _checksum(files: Files) -> int:
    return zlib.crc32(b"".join(files.values()))


@pytest.mark.timeout(0)
def test_mutated_files_are_images_or_refusals() -> None:
    for number, data in enumerate(mutations(MUTATIONS, SEED)):
        try:
            _size_or_refusal(data)
        except Exception as error:
            error.add_note(f"mutation {number} of seed {SEED}: {data.hex()[:4000]}")
            raise
