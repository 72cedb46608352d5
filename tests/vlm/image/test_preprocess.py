"""Images to pixels, compared bit for bit with transformers' PIL backend."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.images import encoded
from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError
from vlm.image.decode import decode
from vlm.image.preprocess import Array, ImagePreprocessor, image_settings

MINIATURES = Path(__file__).parents[3] / "miniatures"
NAMES = ("blip-large", "florence-2-base", "kosmos-2")


def reference(name: str) -> Any:  # transformers is untyped
    kind = BlipImageProcessorPil if name == "blip-large" else CLIPImageProcessorPil
    return kind.from_pretrained(MINIATURES / name)


PAIRS = {
    name: (ImagePreprocessor.from_checkpoint(Checkpoint.open(MINIATURES / name)), reference(name)) for name in NAMES
}


def expected(processor: Any, image: Image.Image) -> Array:
    pixels: Array = processor(image, return_tensors="np")["pixel_values"][0]
    return pixels


def normalised(processor: ImagePreprocessor, image: Image.Image) -> Array:
    """What the encoder reads: each byte of the pixels looked up in its channel's table."""
    return np.stack([row[plane] for row, plane in zip(processor.pixel_table, processor.pixels(image), strict=True)])


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def opened(folder: Path, content: dict[str, Any], file: str = "preprocessor_config.json") -> ImagePreprocessor:
    (folder / "config.json").write_text('{"model_type": "any"}')
    (folder / file).write_text(json.dumps(content))
    return ImagePreprocessor.from_checkpoint(Checkpoint.open(folder))


def stored(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MINIATURES / name / "processor_config.json").read_text())["image_processor"]
    return content


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 220), height=st.integers(1, 220), seed=st.integers(0, 1000))
def test_every_size_gives_the_reference_bits(name: str, width: int, height: int, seed: int) -> None:
    ours, theirs = PAIRS[name]
    image = noise(width, height, seed)
    pixels = ours.pixels(image)
    assert pixels.shape == (3, 96, 96)
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels.flags["WRITEABLE"]
    assert np.array_equal(normalised(ours, image), expected(theirs, image))


@pytest.mark.parametrize("name", NAMES)
def test_the_table_has_a_number_for_each_byte_of_each_channel(name: str) -> None:
    table = PAIRS[name][0].pixel_table
    assert table.shape == (3, 256)
    assert table.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(96, 96), (1, 1), (1, 700), (700, 1), (3, 3), (640, 480), (97, 95)])
def test_awkward_sizes_give_the_reference_bits(name: str, size: tuple[int, int]) -> None:
    ours, theirs = PAIRS[name]
    assert np.array_equal(normalised(ours, noise(*size)), expected(theirs, noise(*size)))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_mode_is_first_made_rgb(mode: str) -> None:
    image = noise(50, 30).convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    ours, theirs = PAIRS["blip-large"]
    rgb = decode(data)
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(normalised(ours, rgb), expected(theirs, plain))


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("size", [(40, 24), (7, 120)])
def test_every_filter_and_side_gives_the_reference_bits(tmp_path: Path, resample: int, size: tuple[int, int]) -> None:
    content = stored("blip-large") | {"resample": resample, "size": {"height": size[0], "width": size[1]}}
    image = noise(61, 47)
    found = normalised(opened(tmp_path, content), image)
    assert found.shape == (3, *size)
    assert np.array_equal(found, expected(BlipImageProcessorPil(**content), image))


@pytest.mark.parametrize(
    "change",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 0.5},
        {"image_mean": [0.5, 0.25, 0], "image_std": [1, 0.5, 0.125]},
    ],
)
def test_every_arithmetic_setting_gives_the_reference_bits(tmp_path: Path, change: dict[str, Any]) -> None:
    content = stored("blip-large") | change
    image = noise(33, 44)
    found = normalised(opened(tmp_path, content), image)
    assert np.array_equal(found, expected(BlipImageProcessorPil(**content), image))


def test_neither_rescaled_nor_normalised_leaves_the_bytes(tmp_path: Path) -> None:
    image = noise(96, 96)
    found = normalised(opened(tmp_path, stored("blip-large") | {"do_normalize": False, "do_rescale": False}), image)
    assert np.array_equal(found, np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_both_folder_layouts_read_the_same(tmp_path: Path, name: str) -> None:
    assert opened(tmp_path, stored(name)) == PAIRS[name][0]
    nested = tmp_path / "nested"
    nested.mkdir()
    assert opened(nested, {"image_processor": stored(name)}, "processor_config.json") == PAIRS[name][0]


def test_the_nested_settings_win_over_the_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"size": 12}}))
    assert opened(tmp_path, {"size": 24}).height == 12


def test_a_processor_config_without_image_settings_defers_to_the_other_file(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "BlipProcessor"}))
    assert opened(tmp_path, {"size": 24}).height == 24


def test_silence_means_the_reference_defaults(tmp_path: Path) -> None:
    image = noise(30, 20)
    found = normalised(opened(tmp_path, {"size": {"height": 16, "width": 16}}), image)
    assert np.array_equal(found, expected(BlipImageProcessorPil(size={"height": 16, "width": 16}), image))


def test_bookkeeping_of_hub_uploads_changes_nothing(tmp_path: Path) -> None:
    extra = {
        "processor_class": "Florence2Processor", "auto_map": {"AutoProcessor": "x.Y"}, "image_seq_length": 577,
        "_valid_processor_keys": ["images"], "do_convert_rgb": None, "pad_size": None, "size_divisor": 32,
    }  # fmt: skip
    assert opened(tmp_path, stored("florence-2-base") | extra) == PAIRS["florence-2-base"][0]


def test_a_crop_to_the_same_size_is_no_crop(tmp_path: Path) -> None:
    content = stored("florence-2-base") | {"do_center_crop": True, "crop_size": 96}
    image = noise(50, 60)
    assert np.array_equal(normalised(opened(tmp_path, content), image), normalised(PAIRS["florence-2-base"][0], image))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"size": {"shortest_edge": 224}}, "size"),
        ({"size": {"height": 96, "width": 96, "longest_edge": 100}}, "size"),
        ({"size": {"height": 0, "width": 96}}, "size"),
        ({"size": -3}, "size"),
        ({"size": None}, "size"),
        ({"resample": 9}, "resample"),
        ({"resample": None}, "resample"),
        ({"do_pad": True}, "do_pad"),
        ({"resample": "bicubic"}, "resample"),
        ({"do_resize": False}, "do_resize"),
        ({"do_rescale": "yes"}, "do_rescale"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"rescale_factor": True}, "rescale_factor"),
        ({"image_mean": 0.5}, "image_mean"),
        ({"image_std": [0.5, 0.5]}, "image_std"),
        ({"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}, "crop_size"),
        ({"use_square_size": True}, "use_square_size"),
        ({"use_square_size": True, "size": {"shortest_edge": 0}}, "use_square_size"),
        ({"use_square_size": 1}, "use_square_size"),
        ({"pad_size": {"height": 128, "width": 128}}, "pad_size"),
        ({"do_thumbnail": True}, "do_thumbnail"),
    ],
)
def test_a_setting_that_is_not_understood_is_an_error_that_names_it(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    with pytest.raises(CheckpointError, match=f"'{key}'") as caught:
        opened(tmp_path, stored("florence-2-base") | change)
    assert str(tmp_path) in caught.value.message


def test_no_settings_at_all_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json in .* is missing"):
        image_settings(Checkpoint.open(tmp_path))


def test_a_square_of_the_shortest_edge_gives_the_reference_bits(tmp_path: Path) -> None:
    """As Kosmos-2's upload asks for it; transformers 5 takes any edge for 224 there, so only that one is compared."""
    content = stored("kosmos-2") | {
        "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "use_square_size": True,
    }  # fmt: skip
    image = noise(61, 47)
    found = normalised(opened(tmp_path, content), image)
    assert np.array_equal(found, expected(CLIPImageProcessorPil(**content), image))
    other = opened(tmp_path, content | {"size": {"shortest_edge": 48}, "crop_size": 48})
    assert (other.height, other.width) == (48, 48)


def test_a_clip_upload_that_is_silent_about_cropping_crops(tmp_path: Path) -> None:
    content = {key: value for key, value in stored("florence-2-base").items() if key != "do_center_crop"}
    with pytest.raises(CheckpointError, match="'crop_size'"):
        opened(tmp_path, content)
