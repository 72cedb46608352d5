"""The files that drawings are written to: each image has one of its own, and no image is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm.cli.paths import drawing_paths
from vlm.errors import InvalidRequest

OUT = Path("found.png")


def _names(target: Path, *images: str) -> list[str]:
    return [path.name for path in drawing_paths(target, images)]


def test_the_drawing_of_one_image_has_the_name_that_was_given() -> None:
    assert drawing_paths(OUT, ["photo.jpg"]) == (OUT,)


def test_drawings_of_several_images_have_the_names_of_the_images(tmp_path: Path) -> None:
    assert _names(OUT, "a.jpg", "b.jpg") == ["found-a.png", "found-b.png"]
    assert drawing_paths(tmp_path, ["a.jpg", "b.jpg"]) == (tmp_path / "a.png", tmp_path / "b.png")
    assert drawing_paths(tmp_path, ["a.jpg"]) == (tmp_path / "a.png",)


def test_drawings_of_images_with_the_same_name_are_numbered(tmp_path: Path) -> None:
    images = ("one/a.jpg", "b.jpg", "two/a.jpg", "a.png")
    assert _names(tmp_path, *images) == ["a-1.png", "b.png", "a-2.png", "a-3.png"]
    assert _names(OUT, *images) == ["found-a-1.png", "found-b.png", "found-a-2.png", "found-a-3.png"]


@pytest.mark.parametrize("images", [("a.jpg", "a-1.jpg", "a.png"), ("a.jpg", "a.png", "a-1.jpg", "x/a-1.jpg")])
def test_a_number_does_not_give_the_name_of_another_image(images: tuple[str, ...], tmp_path: Path) -> None:
    assert len(set(_names(tmp_path, *images))) == len(images)
    assert len(set(_names(OUT, *images))) == len(images)


def test_a_drawing_never_overwrites_an_image(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    for target in (image, tmp_path, tmp_path / "folder" / ".." / "a.png"):
        with pytest.raises(InvalidRequest, match=r"--draw would overwrite the image .*a\.png; name another file"):
            drawing_paths(target, [str(image)])
    assert drawing_paths(tmp_path, [str(tmp_path / "a.jpg")]) == (image,)
