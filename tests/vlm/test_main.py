"""The command line with an engine that answers from a table: what is asked, what is printed, which exit code."""

from __future__ import annotations

import asyncio
import io
import json
import os
import runpy
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.images import oriented, plain
from vlm import __main__ as program
from vlm.__main__ import main
from vlm.cli.arguments import Command
from vlm.errors import CheckpointError, EngineFailure, UnsupportedTask, VlmError
from vlm.grounding_json import to_json
from vlm.models.cards import cards
from vlm.types import Box, Completion, Detection, Grounding, Point, Request, Sampling, Task, Timings, Usage

SIZE = (640, 480)
CAPTION = Grounding("caption", "<CAPTION>", "A red circle.", SIZE)
FOUND = Grounding(
    "detect",
    "<OD>",
    None,
    SIZE,
    (
        Detection("box", label="red circle", box=Box(0.1, 0.2, 0.5, 0.6)),
        Detection("point", label="dot", point=Point(0.5, 0.5)),
    ),
)

Outcome = Completion | VlmError


def _completion(grounding: Grounding, text: str = "A red circle.", ignored: tuple[str, ...] = ()) -> Completion:
    return Completion(
        text, (5, 2), (), grounding, "stop", Usage(577, 4, 2), Timings(1.0, 2.0, 3.0, 4.0), "task", ignored
    )


class FakeEngine:
    """Answers by the image's width, after some turns of the event loop; records the requests."""

    def __init__(self, answers: dict[int, Outcome], default: Outcome) -> None:
        self.answers = answers
        self.default = default
        self.asked: list[Request] = []
        self.together = 0
        self.most_together = 0

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        assert request.image is not None
        width = Image.open(io.BytesIO(request.image)).width
        for _ in range(1000 - width):  # so that wide images, named last here, are answered first
            await asyncio.sleep(0)
        self.together -= 1
        answer = self.answers.get(width, self.default)
        if isinstance(answer, VlmError):
            raise answer
        return answer


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Three images of 640, 641 and 642 pixels' width."""
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for extra, path in enumerate(paths):
        path.write_bytes(plain(640 + extra, 480))
    return [str(path) for path in paths]


def _run(
    argv: list[str], answers: dict[int, Outcome] | None = None, default: Outcome | None = None
) -> tuple[int, FakeEngine]:
    engine = FakeEngine(answers or {}, default or _completion(CAPTION))
    return main(["checkpoint", *argv], lambda command: nullcontext(engine)), engine


def _usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        _run(argv)
    assert caught.value.code == 2
    return _only_line(capsys.readouterr().err)


def _only_line(text: str) -> str:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


# What is asked.


def test_the_prompt_alone_is_passed_on(images: list[str]) -> None:
    _, engine = _run([images[0], "--prompt", "<OD>"])
    assert engine.asked == [Request(Path(images[0]).read_bytes(), "<OD>")]


def test_a_task_carries_its_arguments(images: list[str]) -> None:
    options = ["--task", "detect", "--label", "dog", "--label", "cat", "--length", "long", "--region", "0,0.25,0.5,1"]
    _, engine = _run([images[0], *options])
    assert engine.asked[0].task == Task("detect", ("dog", "cat"), None, Box(0, 0.25, 0.5, 1), "long")


def test_sampling_is_passed_on(images: list[str]) -> None:
    _, engine = _run([images[0], "--temperature", "0.5", "--top-p", "0.9", "--seed", "7", "--max-tokens", "20"])
    assert engine.asked[0].sampling == Sampling(20, 0.5, 0.9, 7)
    _, engine = _run([images[0]])
    assert engine.asked[0].sampling == Sampling()


def test_a_region_in_pixels_is_of_each_image(images: list[str]) -> None:
    _, engine = _run([*images[:2], "--task", "region_caption", "--region", "64,48,320,480"])
    boxes = [request.task.region for request in engine.asked if request.task]
    assert boxes == [Box(0.1, 0.1, 0.5, 1.0), Box(64 / 641, 0.1, 320 / 641, 1.0)]


def test_a_region_in_pixels_counts_on_the_upright_image(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(oriented(6, 480, 640))
    _, engine = _run([str(path), "--task", "region_caption", "--region", "64,48,640,480"])
    assert engine.asked[0].task is not None
    assert engine.asked[0].task.region == Box(0.1, 0.1, 1.0, 1.0)


def test_all_images_are_in_the_engine_at_once(images: list[str]) -> None:
    _, engine = _run(images)
    assert engine.most_together == 3


def test_no_more_images_than_memory_should_hold_are_in_the_engine(
    images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "AT_ONCE", 2)
    code, engine = _run(images * 2)
    assert (code, engine.most_together, len(engine.asked)) == (0, 2, 6)


# What is printed.


def test_text_is_printed_as_it_is(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run([images[0]])[0] == 0
    assert capsys.readouterr().out == "A red circle.\n"


def test_geometry_is_a_list_of_labels_and_pixels(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run([images[0]], default=_completion(FOUND, ""))
    assert capsys.readouterr().out == (
        "red circle     64    96   320   288\n"
        "dot           320   240\n"
    )  # fmt: skip


def test_an_empty_grounding_is_printed_as_nothing_found(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run([images[0]], default=_completion(Grounding("detect", "<OD>", None, SIZE), ""))
    assert capsys.readouterr().out == "nothing found\n"


def test_several_answers_come_in_the_order_of_the_images(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run(images, {641: _completion(FOUND)})
    first, second, *objects, last = capsys.readouterr().out.splitlines()
    assert (first, second, last) == (
        f"{images[0]}: A red circle.",
        f"{images[1]}:",
        f"{images[2]}: A red circle.",
    )
    assert objects == ["  red circle     64    96   320   288", "  dot           320   240"]


def test_json_is_one_object_per_image_and_line(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = _run([*images, "--json"], {641: EngineFailure("It failed.", code="engine_failure")}, _completion(FOUND))
    captured = capsys.readouterr()
    first, second, third = (json.loads(line) for line in captured.out.splitlines())
    assert first == {
        "image": images[0],
        "text": "A red circle.",
        "token_ids": [5, 2],
        "grounding": to_json(FOUND),
        "finish_reason": "stop",
        "usage": asdict(Usage(577, 4, 2)),
        "timings": {"prepare_ms": 1.0, "queue_ms": 2.0, "first_token_ms": 3.0, "total_ms": 4.0},
    }
    assert second == {
        "image": images[1],
        "error": {"message": "It failed.", "param": None, "code": "engine_failure"},
    }
    assert third == {**first, "image": images[2]}
    assert (code, captured.err) == (1, f"error: {images[1]}: It failed.\n")


def test_a_note_names_the_options_that_are_not_used(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run([images[0]], default=_completion(CAPTION, ignored=("task.length",)))[0] == 0
    assert capsys.readouterr().err == "note: this task does not use --length\n"


# Drawing.


def test_draw_writes_the_image_with_what_was_found(images: list[str], tmp_path: Path) -> None:
    assert _run([images[0], "--draw", str(tmp_path / "out.png")], default=_completion(FOUND))[0] == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == SIZE
        assert len(image.getcolors() or []) > 1


def test_several_drawings_have_the_names_of_their_images(images: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.jpg"
    _run([*images, "--json", "--draw", str(out)], {641: EngineFailure("It failed.")}, _completion(FOUND))
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out-a.jpg", "out-c.jpg"]


def test_a_drawing_that_cannot_be_written_is_a_failure(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run([images[0], "--draw", str(tmp_path / "absent" / "out.png")])[0] == 1
    captured = capsys.readouterr()
    assert captured.out == "A red circle.\n"
    assert "out.png cannot be written (No such file or directory)" in _only_line(captured.err)


def test_a_drawing_over_an_image_is_refused_before_anything_is_loaded(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Path(images[0]).read_bytes()
    code, engine = _run([*images, "--draw", str(tmp_path)])
    assert (code, engine.asked, Path(images[0]).read_bytes()) == (2, [], content)
    assert f"--draw would overwrite the image {images[0]}" in _only_line(capsys.readouterr().err)


# What goes wrong.


@pytest.mark.parametrize(
    ("answer", "code"),
    [(UnsupportedTask("No such task."), 2), (EngineFailure("It failed."), 1)],
)
def test_one_failing_image_leaves_the_others_their_answers(
    answer: VlmError, code: int, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(images, {641: answer})[0] == code
    captured = capsys.readouterr()
    assert captured.out == f"{images[0]}: A red circle.\n{images[2]}: A red circle.\n"
    assert _only_line(captured.err) == f"error: {images[1]}: {answer}\n"


def test_a_failure_weighs_more_than_bad_input(images: list[str]) -> None:
    assert _run(images, {640: EngineFailure("It failed."), 642: UnsupportedTask("No such task.")})[0] == 1


def test_files_that_cannot_be_read_are_bad_input(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent, locked = str(tmp_path / "absent.png"), tmp_path / "pipe.png"
    code, engine = _run([absent, images[0]])
    assert (code, engine.asked) == (2, [])
    assert capsys.readouterr() == ("", f"error: there is no such file: {absent}\n")
    locked.mkdir()
    assert _run([images[0], str(locked)])[0] == 2
    assert f"the folder {locked} holds no images" in _only_line(capsys.readouterr().err)


def test_a_folder_stands_for_its_images(images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    code, engine = _run([str(tmp_path)])
    captured = capsys.readouterr()
    assert (code, len(engine.asked)) == (0, 3)
    assert captured.out == "".join(f"{image}: A red circle.\n" for image in images)
    assert captured.err == f"note: {tmp_path}: skipped 1 file that is not an image\n"


def test_an_error_of_the_question_is_printed_once(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refusal = UnsupportedTask("There is no task x; send task.labels.", "task.labels")
    assert _run(images, dict.fromkeys((640, 641, 642), refusal))[0] == 2
    assert capsys.readouterr().err == (
        f"error: {images[0]}: There is no task x; send --label.\n"
        "error: the same for 2 more images: There is no task x; send --label.\n"
    )


def test_a_note_is_printed_once(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run(images, default=_completion(CAPTION, ignored=("prompt", "task.threshold")))
    assert capsys.readouterr().err == "note: this task does not use --prompt, --threshold\n"


def test_every_option_of_a_task_is_passed_on(images: list[str]) -> None:
    options = [
        "--reasoning",
        "--threshold",
        "0.1",
        "--max-objects",
        "3",
        "--reference",
        "64,48",
        "--reference",
        "0,0,1,1",
    ]
    _, engine = _run([images[0], "--task", "query", "--beams", "2", *options])
    assert engine.asked[0].task == Task(
        "query", max_objects=3, reasoning=True, references=(Point(0.1, 0.1), Box(0, 0, 1, 1)), threshold=0.1
    )
    assert engine.asked[0].sampling == Sampling(num_beams=2)


def test_compact_json_holds_text_and_objects_alone(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run([images[0], "--compact"], default=_completion(FOUND))
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["image", "text", "objects"]
    assert answer["objects"][0]["box_px"] == [64.0, 96.0, 320.0, 288.0]


def test_reasoning_is_printed_before_the_text(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    grounding = replace(FOUND, reasoning=" red circle ", detections=FOUND.detections[1:])
    _run([images[0]], default=_completion(grounding, "one"))
    assert capsys.readouterr().out == "reasoning: red circle\none\ndot    320   240\n"


def test_objects_that_the_threshold_left_out_are_counted(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run([images[0]], default=_completion(replace(FOUND, detections=(), below_threshold=2), ""))
    assert capsys.readouterr() == ("nothing found\n", "note: --threshold left out 2 objects\n")


def test_an_image_that_vanishes_before_it_is_annotated_is_one_error(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Vanishing(FakeEngine):
        async def complete(self, request: Request) -> Completion:
            Path(images[0]).unlink(missing_ok=True)
            return await super().complete(request)

    folder = tmp_path / "annotated"
    folder.mkdir()
    argv = ["checkpoint", *images[:2], "--task", "detect", "--draw", str(folder)]
    code = main(argv, lambda command: nullcontext(Vanishing({}, _completion(FOUND))))
    assert code == 2
    assert f"error: {images[0]}: the file cannot be read (No such file or directory)" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["b.png"]


def test_a_region_outside_one_image_is_bad_input_for_that_image(
    images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, engine = _run([*images[:2], "--task", "region_caption", "--region", "0,0,641,480"])
    assert (code, len(engine.asked)) == (2, 1)
    assert "outside the image of 640 x 480 pixels" in _only_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--region", "0,0,1"], "four numbers"),
        (["--region", "0,0,1,x"], "four numbers"),
        (["--region", "0.5,0,0.5,1"], "x1 < x2"),
        (["--region", "0,nan,1,1"], "y1 < y2"),
        (["--region", "0,0,inf,1"], "x1 < x2"),
        (["--length", "endless"], "--length"),
        (["--dtype", "int4"], "--dtype"),
        (["--draw", "out.pdf"], ".png"),
        (["--seed", "x"], "--seed"),
        (["--threshold", "2"], "--threshold"),
        (["--max-objects", "0"], "--max-objects"),
        (["--reference", "1,2,3"], "two numbers"),
        (["--reference", "-1,2"], "--reference"),
        (["--unknown"], "--unknown"),
    ],
)
def test_usage_errors_are_one_line(
    options: list[str], said: str, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in _usage_error([images[0], *options], capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "3"], "--temperature must be from 0 to 2"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1"),
        (["--top-p", "nan"], "--top-p"),
        (["--label", "dog"], "--task"),
        (["--region", "0,0,1,1"], "--task"),
        (["--length", "long"], "--task"),
        (["--reasoning", "--threshold", "0"], "--reasoning, --threshold: only with a task"),
    ],
)
def test_settings_out_of_range_are_bad_input_before_anything_is_loaded(
    options: list[str], said: str, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def never(command: Command) -> AbstractContextManager[Any]:
        pytest.fail("the checkpoint was loaded")

    assert main(["checkpoint", images[0], *options], never) == 2
    assert said in _only_line(capsys.readouterr().err)


def test_a_checkpoint_that_cannot_be_loaded_is_a_failure(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(command: Command) -> AbstractContextManager[Any]:
        raise CheckpointError("There is no folder 'checkpoint'.")

    assert main(["checkpoint", images[0]], refuse) == 1
    assert capsys.readouterr() == ("", "error: There is no folder 'checkpoint'.\n")


def test_an_interrupt_ends_quietly(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        async def complete(self, request: Request) -> Completion:
            raise KeyboardInterrupt

    def interrupt(command: Command) -> AbstractContextManager[Any]:
        raise KeyboardInterrupt

    assert main(["checkpoint", *images], lambda command: nullcontext(Interrupted())) == 130
    assert main(["checkpoint", *images], interrupt) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_ends_it_quietly(
    images: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        assert _run(images)[0] == 1
    assert capsys.readouterr().err == ""


def test_help_lists_the_options_and_the_tasks_of_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--draw OUT.png" in text
    assert "python -m vlm miniatures/florence-2-base photo.jpg --task detect" in text
    for card in cards().values():
        assert card.name in text
        assert all(task.name in text for task in card.tasks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "detekt"], "has no task 'detekt'"),
        (["--task", "region_caption"], "--region 0.1,0.2,0.5,0.6"),
        (["--task", "ground"], "--prompt TEXT"),
        (["--beams", "2", "--temperature", "0.5"], "--beams"),
    ],
)
def test_a_question_that_no_image_can_answer_is_refused_before_the_weights_are_read(
    options: list[str], message: str, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(ROOT / "miniatures" / "florence-2-base", tmp_path / "checkpoint"))
    (checkpoint / "model.safetensors").unlink()
    assert main([str(checkpoint), *images, *options]) == 2
    assert message in _only_line(capsys.readouterr().err)


def test_beams_are_refused_before_the_weights_are_read(
    images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(ROOT / "miniatures" / "moondream-2", tmp_path / "checkpoint"))
    (checkpoint / "model.safetensors").unlink()
    assert main([str(checkpoint), *images, "--task", "caption", "--beams", "2"]) == 2
    refusal = "error: This model has no beam search: leave --beams out, or set it to 1.\n"
    assert capsys.readouterr().err == refusal
    assert main([str(checkpoint), *images, "--task", "caption", "--beams", "1"]) == 1
    assert "model.safetensors" in _only_line(capsys.readouterr().err)


# With a real checkpoint.

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "circle-and-square.png"


def test_the_example_image_is_what_its_script_draws() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "generate" / "example_image.py"))["example_image"]()
    with Image.open(EXAMPLE) as image:
        assert image.tobytes() == drawn.tobytes()


def test_a_miniature_finds_the_circle_and_the_square(capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(ROOT / "miniatures" / "florence-2-base")
    options = ["--task", "detect", "--json", "--device", "cpu", "--dtype", "float32"]
    assert main([checkpoint, str(EXAMPLE), *options]) == 0
    objects = json.loads(capsys.readouterr().out)["grounding"]["objects"]
    assert [found["label"] for found in objects] == ["circle", "square"]
    for found, place in zip(objects, [(75, 135, 265, 325), (390, 150, 560, 320)], strict=True):
        assert all(abs(got - want) < 40 for got, want in zip(found["box_px"], place, strict=True))


@pytest.mark.parametrize(("region", "fits"), [("0,0,640,480", True), ("0,0,641,480", False), ("0,0,640,481", False)])
def test_a_region_in_pixels_may_reach_to_each_edge_and_no_further(region: str, fits: bool, images: list[str]) -> None:
    code, _ = _run([images[0], "--task", "region_caption", "--region", region])
    assert code == (0 if fits else 2)
