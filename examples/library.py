"""Asks a model in this process, without a server: one image, then several at once in one batch.

.venv/bin/python examples/library.py [IMAGE]
"""

from __future__ import annotations

import sys
from pathlib import Path

from vlm import Engine, Request, Task, load

path = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/circle-and-square.png")
image = path.read_bytes()

with Engine(load("miniatures/florence-2-base", device="cpu", dtype="float32")) as engine:
    answer = engine.answer(Request(image, task=Task("detect")))
    for found in answer.grounding.detections:  # coordinates from 0 to 1
        print(found.label, found.box)

    tasks = [Task("caption", length="short"), Task("caption", length="long"), Task("dense_caption")]
    for task, answer in zip(tasks, engine.answer_all([Request(image, task=task) for task in tasks]), strict=True):
        print(task.name, answer.text or [found.label for found in answer.grounding.detections])
