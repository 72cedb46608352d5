"""The images to try: one command makes them again, what their page says is true, and they keep the world's rules."""

from __future__ import annotations

import json
import math
import re
import subprocess
from functools import reduce
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageChops

from docs.generate import example_image
from docs.generate.images import main
from docs.generate.images_page import command
from docs.generate.sample_images import IMAGES, Corners, SampleImage, Thing
from router.asgi.validation import validated
from router.chat.schema import ChatBody
from training.data.scenes import THIRDS, Scene, Shape, Word, middle
from training.data.sentences import detailed, paragraph
from training.data.shapes import BACKGROUNDS, COLOURS, KINDS, Colour
from training.data.world import scene
from vlm.models.cards import cards
from vlm.types import Box

FOLDER = Path(__file__).parents[2] / "docs/images"
PAGE = (FOLDER / "README.md").read_text("utf-8")
AGAIN = "; `.venv/bin/python docs/generate/images.py` makes it again"
of_each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


def test_the_command_makes_what_is_here(tmp_path: Path) -> None:
    main(["--into", str(tmp_path)])
    assert (tmp_path / "README.md").read_text("utf-8") == PAGE, "docs/images/README.md is old" + AGAIN
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.iterdir()}


@of_each_image
def test_a_file_holds_the_rendered_pixels(image: SampleImage) -> None:
    with Image.open(FOLDER / f"{image.name}.png") as kept:
        changed = np.asarray(kept.convert("RGB")) != np.asarray(image.render())
    # another FreeType may render the edges of letters differently
    assert changed.mean() <= (0.02 if image.scene.word else 0), f"{image.name}.png is old" + AGAIN


def test_the_example_image_is_what_its_script_makes(tmp_path: Path) -> None:
    example_image.main([str(tmp_path / "out.png")])
    with (
        Image.open(tmp_path / "out.png") as made,
        Image.open(FOLDER.parents[1] / "examples/circle-and-square.png") as kept,
    ):
        assert np.array_equal(np.asarray(made.convert("RGB")), np.asarray(kept.convert("RGB")))


def test_files_are_small() -> None:
    sizes = {image.name: (FOLDER / f"{image.name}.png").stat().st_size for image in IMAGES}
    assert max(sizes.values()) < 20_000, sizes
    assert sum(sizes.values()) < 100_000


def test_all_kinds_colours_backgrounds_and_counts_occur() -> None:
    scenes = [image.scene for image in IMAGES]
    assert {len(one.shapes) for one in scenes} >= {0, 1, 2, 3, 5}
    assert {one.background for one in scenes} == set(BACKGROUNDS)
    assert {shape.kind for one in scenes for shape in one.shapes} == set(KINDS)
    assert {shape.colour for one in scenes for shape in one.shapes} == set(COLOURS)
    assert {image.model for image in IMAGES} == {"blip-large", "florence-2-base", "kosmos-2"}


def test_no_two_images_have_the_same_description() -> None:
    for sentences in ([image.caption for image in IMAGES], *map(list, zip(*map(described, IMAGES), strict=True))):
        assert len(set(sentences)) == len(IMAGES)


def described(image: SampleImage) -> tuple[str, str]:
    return detailed(image.scene), paragraph(image.scene)


@of_each_image
def test_things_are_where_the_page_says(image: SampleImage) -> None:
    for thing in image.scene.things:
        corners = image.corners(thing)
        found = extent(image.render(), ink(thing))
        assert all(abs(got - want) <= 3 for got, want in zip(found, corners, strict=True)), (found, corners)
        assert f"`{' '.join(map(str, corners))}`" in PAGE


def ink(thing: Thing) -> Colour:
    if isinstance(thing, Shape):
        return thing.shade
    return (12, 12, 12) if thing.dark else (244, 244, 244)


def extent(image: Image.Image, colour: Colour) -> Corners:
    """The box around everything that is roughly of that colour."""
    channels = ImageChops.difference(image, Image.new("RGB", image.size, colour)).split()
    farthest = reduce(ImageChops.lighter, channels)
    box = farthest.point([255] * 45 + [0] * 211).getbbox()
    assert box is not None
    return box


# The rules as the page states them. Scenes of the miniatures' world are held to them too, so that the page is right.


@of_each_image
def test_an_image_keeps_the_rules(image: SampleImage) -> None:
    assert_keeps_the_rules(image.scene)


def test_the_world_keeps_them() -> None:
    for seed in range(300):
        assert_keeps_the_rules(scene(seed))


def assert_keeps_the_rules(one: Scene) -> None:
    assert min(one.width, one.height) >= 64
    assert max(one.width, one.height) <= 1600
    assert max(one.width, one.height) <= 2 * min(one.width, one.height) + 2  # of rounding
    assert one.background in BACKGROUNDS
    assert 1 <= len(one.things) <= 5
    assert len(one.shapes) <= (2 if one.word else 5)
    assert_spaced(one)
    assert_named_apart(one)
    assert_ordered(one)
    for shape in one.shapes:
        assert_shape_keeps_the_rules(shape, one)
    if one.word:
        assert_word_keeps_the_rules(one.word, one)


def assert_spaced(one: Scene) -> None:
    for thing in one.things:
        assert min(thing.box.x_min, thing.box.y_min) >= 0.009
        assert max(thing.box.x_max, thing.box.y_max) <= 0.991
    for first, second in combinations(one.things, 2):
        assert one.inside or apart(first.box, second.box) > 0.02


def apart(first: Box, second: Box) -> float:
    across = max(first.x_min - second.x_max, second.x_min - first.x_max)
    return max(across, first.y_min - second.y_max, second.y_min - first.y_max)


def assert_named_apart(one: Scene) -> None:
    names, regions = ([shape.name for shape in one.shapes], [shape.region for shape in one.shapes])
    assert len(set(names)) == len(names)
    assert one.inside or len(set(regions)) == len(regions)


def assert_ordered(one: Scene) -> None:
    """From left to right; the relation of two is beyond doubt."""
    if one.inside:
        outer, inner = (middle(shape.box) for shape in one.shapes)
        assert max(abs(outer.x - inner.x), abs(outer.y - inner.y)) <= 0.01
        return
    steps = [(right.centre.x - left.centre.x, right.centre.y - left.centre.y) for left, right in pairwise(one.shapes)]
    assert all(across >= (0 if len(one.shapes) == 2 else 0.03) for across, _ in steps)
    assert len(one.shapes) != 2 or abs(steps[0][0] - abs(steps[0][1])) >= 0.06
    assert len(one.shapes) < 4 or sum(shape.size == "large" for shape in one.shapes) <= 2


def assert_shape_keeps_the_rules(shape: Shape, one: Scene) -> None:
    across, down = shape.box.x_max - shape.box.x_min, shape.box.y_max - shape.box.y_min
    within = one.inside and shape == one.shapes[1]
    low, high = (0.14, 0.17) if within else {"small": (0.17, 0.22), "large": (0.31, 0.41)}[shape.size]
    assert low - 1e-6 <= math.sqrt(across * down) <= high + 1e-6
    assert 0.83 <= down * one.height / (across * one.width) <= 1.2
    assert within or all(
        abs(value - edge) >= 0.025 for value in (shape.centre.x, shape.centre.y) for edge in THIRDS
    )  # fmt: skip


def assert_word_keeps_the_rules(word: Word, one: Scene) -> None:
    assert re.fullmatch("[A-Z]{2,5}", word.text)
    assert 0.18 <= word.em <= 0.34
    assert word.dark == (one.background != "black")


# The commands of the page.


@of_each_image
def test_a_request_is_a_valid_one_of_the_models_tasks(image: SampleImage) -> None:
    body = sent_body(image)
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    validated(ChatBody, {**body, "messages": [message]})
    assert body == {"model": image.model, "task": image.task}
    assert image.task["name"] in {task.name for task in cards()[image.model].tasks}


def sent_body(image: SampleImage) -> dict[str, object]:
    """What the page's shell function sends, without the messages; a function that prints the body replaces curl."""
    defined = re.search(r"^ask\(\) \{.*?^\}", PAGE, re.DOTALL | re.MULTILINE)
    assert defined is not None
    assert f"`{command(image)}`" in PAGE
    fake = "curl() { tr -d '\\n'; }"  # as curl's `-d @-` strips line breaks
    script = f"{fake}\n{defined[0]}\n{command(image)}"
    done = subprocess.run(["bash", "-c", script], cwd=FOLDER.parent.parent, capture_output=True, text=True, check=True)
    body: dict[str, object] = json.loads(done.stdout)
    assert json.dumps(body.pop("messages")).count("data:image/png;base64,iVBOR") == 1
    return body


def test_the_svg_shows_the_shapes_of_the_snippet_beside_it() -> None:
    (snippet,), (svg,) = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("python", "svg"))
    assert [child.tag.split("}")[1] for child in ElementTree.fromstring(svg)] == ["rect", "circle", "polygon"]
    painted, described = snippet[snippet.index("pen.circle") : snippet.index("pen.text")], svg[svg.index("<circle") :]
    assert re.findall(r"\d+", painted) == re.findall(r"\d+", described)
