"""Texts about a scene are true, questions have one answer, and no tokenizer makes a text repeat a trigram."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from training.blip import files as blip
from training.data import sentences
from training.data.scenes import Scene
from training.data.trigrams import repeated, split
from training.data.world import scene
from training.florence2 import files as florence2
from training.florence2 import tasks as florence2_tasks
from training.kosmos2 import files as kosmos2
from training.kosmos2 import tasks as kosmos2_tasks
from training.moondream2 import files as moondream2
from vlm.checkpoint.files import Checkpoint
from vlm.models.kosmos2.vocabulary import Vocabulary

SCENES = [scene(seed) for seed in range(250)]
Encode = Callable[[str], Sequence[int]]


def all_texts(one: Scene) -> list[str]:
    return [sentences.plain(sentences.caption(one)), sentences.detailed(one), sentences.paragraph(one)]


def answers(one: Scene) -> dict[str, str]:
    return {question.text: question.answer for question in sentences.questions(one, random.Random(0))}


def test_repeated_trigrams_are_found() -> None:
    assert repeated("abcab") == set()
    assert repeated("abcabc") == {("a", "b", "c")}
    assert split("a <b>red</b> circle, STOP.") == ["a", "<b>", "red", "</b>", "circle", ",", "S", "T", "O", "P", "."]


def test_no_text_repeats_a_trigram() -> None:
    assert not [text for one in SCENES for text in all_texts(one) if repeated(split(text))]


def test_answers_about_number_colour_and_kind_are_true() -> None:
    for one in SCENES:
        truth = answers(one)
        assert truth["How many shapes are there?"] == sentences.NUMBERS[len(one.shapes)]
        for shape in one.shapes:
            assert truth.get(f"What color is the {shape.kind}?", shape.colour) == shape.colour
            assert truth.get(f"What shape is {shape.colour}?", shape.kind) == shape.kind
        if one.word:
            assert truth["What is the word?"] == one.word.text


def test_answers_about_presence_are_true() -> None:
    seen = set()
    for number, one in enumerate(SCENES):
        [question] = [each for each in sentences.questions(one, random.Random(number)) if each.kind == "is there"]
        present = any(shape.name in question.text for shape in one.shapes)
        assert question.answer == ("yes" if present else "no")
        seen.add(question.answer)
    assert seen == {"yes", "no"}


def test_relations_are_true() -> None:
    seen = set()
    for one in SCENES:
        if len(one.shapes) != 2:
            continue
        first, name, second = sentences.relation(one)
        seen.add(name)
        assert answers(one)[f"What is {name} the {second.name}?"] == sentences.phrase(first)
        if name == "inside":
            assert first.box.x_min > second.box.x_min
            assert first.box.x_max < second.box.x_max
        elif name == "left of":
            assert first.centre.x < second.centre.x
        else:
            assert first.centre.y < second.centre.y
    assert seen == {"left of", "above", "inside"}


def test_captions_name_things_of_the_scene() -> None:
    for one in SCENES:
        parts = sentences.caption(one)
        assert {part.thing for part in parts if part.thing} <= set(one.things)
        assert (f"the word {one.word.text}" in sentences.plain(parts)) if one.word else True
        assert all(shape.name in sentences.detailed(one) for shape in one.shapes)
        assert f"on a {one.background} background." in sentences.detailed(one)


def florence2_encode(folder: Path) -> Encode:
    tokenizer = florence2.write_tokenizer(folder)
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def test_florence2_can_write_every_answer_and_sizes_are_single_tokens(folder: Path) -> None:
    encode = florence2_encode(folder)
    for number, one in enumerate(SCENES[:120]):
        for token in florence2_tasks.available_tasks(one):
            if "SEGMENTATION" in token:
                continue  # corners of a cross may share a coordinate by chance
            ids = encode(florence2_tasks.make_example(token, one, random.Random(number)).answer)
            assert not repeated([2, 0, *ids, 2]), (token, number)
    for word in ("small", "large", " small", " large", " circle", "circle", " background"):
        assert len(encode(word)) == 1
    assert len(encode(" STOP")) == 5  # the space, and each letter


def test_kosmos2_can_write_every_answer_after_its_prompt(tmp_path: Path) -> None:
    kosmos2.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "kosmos-2"}')
    vocabulary = Vocabulary.from_checkpoint(Checkpoint.open(tmp_path))
    head = [0, vocabulary.tags["<image>"], *range(4, 4 + kosmos2.LATENTS), vocabulary.tags["</image>"]]
    for number, one in enumerate(SCENES[:120]):
        for example in kosmos2_tasks.all_examples(one, random.Random(number)):
            ids = vocabulary.encode_tagged(example.prompt + example.answer)
            assert vocabulary.unknown not in ids
            assert not repeated([*head, *ids]), (example, number)


def test_blip_knows_every_word(tmp_path: Path) -> None:
    tokenizer = blip.write_tokenizer(tmp_path)
    for one in SCENES[:120]:
        text = sentences.plain(sentences.caption(one))
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text.lower()


def test_moondream2_spells_words_letter_by_letter(tmp_path: Path) -> None:
    config = moondream2.write_files(tmp_path)
    tokenizer = Checkpoint.open(tmp_path).tokenizer()
    assert len(tokenizer.encode("the word STOP").ids) == len(tokenizer.encode("the word").ids) + 5
    assert config["config"]["text"]["vocab_size"] == tokenizer.get_vocab_size()
