"""The gallery: one command makes it again, it shows every task, it is small, and what its page says can be run."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from docs.generate.gallery import questions, task_of
from docs.generate.questions import GALLERY_IMAGES, QUESTIONS, Question
from router.asgi.validation import validated
from router.chat.schema import ChatBody
from vlm.models.cards import cards

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "gallery/README.md").read_text("utf-8")
IMAGES_PAGE = (DOCS / "images/README.md").read_text("utf-8")
SHAPES = {"boxes", "points", "quads", "polygons"}
AGAIN = "; `.venv/bin/python docs/generate/gallery.py` makes it again"


def named(text: str, folder: str) -> set[str]:
    """The gallery's files that a page names."""
    return set(re.findall(rf"{folder}gallery/([\w.-]+\.png)", text))


def test_the_command_makes_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a script, but in this process, which has loaded torch already."""
    monkeypatch.setattr(sys, "argv", ["gallery.py", "--into", str(tmp_path)])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in {"", str(ROOT)}])
    runpy.run_path(str(DOCS / "generate/gallery.py"), run_name="__main__")
    assert (tmp_path / "README.md").read_text("utf-8") == PAGE, "docs/gallery/README.md is old" + AGAIN
    for path in tmp_path.glob("*.png"):
        assert alike(path, DOCS / "gallery" / path.name), f"{path.name} is old" + AGAIN


def alike(new: Path, old: Path) -> bool:
    """Equal but for the edges of letters, which another FreeType renders otherwise; the page has the exact boxes."""
    with Image.open(new) as one, Image.open(old) as other:
        difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).convert("L")
    changed = difference.point([0] * 32 + [1] * 224).histogram()[1]
    return changed < difference.width * difference.height / 50


def test_every_file_that_a_page_names_is_there_and_no_other() -> None:
    there = {path.name for path in (DOCS / "gallery").glob("*.png")}
    assert set(re.findall(r'src="([\w.-]+\.png)"', PAGE)) == there
    assert set(re.findall(r"images/([\w-]+)\.png", PAGE)) == {image.name for image in GALLERY_IMAGES}
    assert named((ROOT / "README.md").read_text("utf-8"), "docs/") <= there


def test_every_task_of_a_model_that_locates_things_has_an_image() -> None:
    offered = {
        (card.name, task.name)
        for card in cards().values()
        if any(SHAPES & set(task.outputs) for task in card.tasks)
        for task in card.tasks
    }
    assert {(one.model, one.task["name"]) for one in QUESTIONS} == offered, "see docs/generate/questions.py"
    shown = {one.model for one in questions()}
    assert shown == {model for model, _ in offered if (ROOT / "miniatures" / model).is_dir()}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.file)
def test_a_request_is_a_part_of_a_valid_body(question: Question) -> None:
    validated(ChatBody, {"model": question.model, "messages": [{"role": "user"}], "task": question.task})
    assert task_of(question).name == question.task["name"]


def test_files_have_names_of_their_own() -> None:
    files = [question.file for question in QUESTIONS]
    assert len(set(files)) == len(files)


def test_files_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (DOCS / "gallery").glob("*.png")}
    assert max(sizes.values()) < 15_000
    assert sum(sizes.values()) < 200_000


def test_the_snippets_of_the_pages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, annotate = (re.findall(r"```python\n(.*?)```", page, re.DOTALL) for page in (IMAGES_PAGE, PAGE))
    assert (len(make), len(annotate)) == (1, 1)
    objects: list[dict[str, Any]] = [{"label": "circle", "box_px": [60.0, 90.0, 200.0, 230.0]}]
    exec(make[0], {})
    exec(annotate[0], {"objects": objects})
    with Image.open("mine.png") as before, Image.open("found.png") as after:
        assert ImageChops.difference(before, after).getbbox() is not None
