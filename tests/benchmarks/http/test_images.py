"""Every request has a file of its own, whose pixels are those of a known image."""

from __future__ import annotations

import base64
import io
from itertools import islice

import numpy as np
from PIL import Image

from benchmarks.http.images import Images
from vlm.image.limits import ImageLimits
from vlm.image.scan import scan


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def test_files_are_new_and_show_what_they_say() -> None:
    images = Images(2, (64, 48))
    sent = list(islice(images, 5))
    files = [base64.b64decode(one.base64, validate=True) for one in sent]
    assert [one.number for one in sent] == [0, 1, 0, 1, 0]
    assert len({*files, *images.files}) == 7
    for one, file in zip(sent, files, strict=True):
        scan(file, ImageLimits())
        assert (pixels(file) == pixels(images.files[one.number])).all()


def test_no_file_comes_again_in_the_next_turn_or_the_next_run() -> None:
    images, others = Images(1, (16, 16)), Images(1, (16, 16))
    turns = [*islice(images, 3), *islice(images, 3), *islice(others, 3)]
    assert len({one.base64 for one in turns}) == 9
