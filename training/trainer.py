"""The training loop: steps, rates, progress, and a state on disk from which it goes on as if never interrupted.

Every random choice of a step follows from the step's number, and a state holds every parameter with its moments, so
that a run in two parts ends in the same bits as a run in one. Does not know any model.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from training.data.batches import Batches
from training.loss_curve import draw_curve
from training.recipe import Lesson
from vlm.checkpoint.weight_rules import NOTHING
from vlm.errors import CheckpointError

STATE, PROGRESS, CURVE = "state.safetensors", "progress.jsonl", "curve.png"
_WARM_UP = 200
_COOL_DOWN = 0.4
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Schedule:
    """How fast to learn at each step: a warm-up, a plateau, and a straight way down over the last part.

    A later session may go on with more steps: the plateau grows, and the rate rises again.
    """

    rate: float
    steps: int

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / (_COOL_DOWN * self.steps)
        return self.rate * min((step + 1) / _WARM_UP, 1.0) * min(max(left, 0.01), 1.0)


class Trainer:
    """One lesson, its optimiser and its folder."""

    def __init__(self, lesson: Lesson, batches: Batches, schedule: Schedule, folder: Path, slow: str = NOTHING) -> None:
        """``slow``: a regular expression; parameters in whose name it is found learn at a third of the rate."""
        self.lesson, self.batches, self.schedule, self.folder = lesson, batches, schedule, folder
        self.named = dict(lesson.module.named_parameters())
        self.optimizer = torch.optim.AdamW(_groups(self.named, slow), betas=(0.9, 0.99), fused=True)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, until: int, report: Callable[[str], None], every: int = 50, save_every: int = 500) -> None:
        """Train up to step ``until``; progress is reported every ``every`` steps, the state kept at intervals."""
        recent: list[Mapping[str, float]] = []
        began, first = time.perf_counter(), self.step
        while self.step < until:
            recent.append(self.learn())
            if self.step % every == 0 or self.step == until:
                pace = (time.perf_counter() - began) / (self.step - first)
                self._note(_mean(recent), pace, report)
                recent = []
            if self.step % save_every == 0 or self.step == until:
                self.save()

    def learn(self) -> Mapping[str, float]:
        """One step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.at(self.step) * group["pace"]
        batch = self.batches.step(self.step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, measures = self.lesson.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without annotations
        nn.utils.clip_grad_norm_(self.named.values(), 1.0, foreach=True)
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.item(), **measures}

    def save(self) -> None:
        """Write the state; the old one is there until the new one is complete."""
        tensors = {f"weight {name}": value.detach() for name, value in self.named.items()}
        for name, value in self.named.items():
            moments = self.optimizer.state.get(value, {})
            tensors |= {f"{kind} {name}": moments[kind] for kind in _MOMENTS if kind in moments}
        partial = self.folder / f"{STATE}.partial"
        save_file(tensors, partial, metadata={"step": str(self.step), "fingerprint": self.lesson.fingerprint})
        partial.replace(self.folder / STATE)

    def resume(self) -> bool:
        """Go back to the saved state; False where there is none.

        Raises:
            CheckpointError: The state was trained with another vocabulary.
        """
        path = self.folder / STATE
        if not path.exists():
            return False
        with safe_open(path, framework="pt") as state:
            told = state.metadata()
            self.step = int(told["step"])
            if told.get("fingerprint", self.lesson.fingerprint) != self.lesson.fingerprint:
                raise CheckpointError(f"{path} was trained with another vocabulary: begin anew in another folder.")
            held = set(state.keys())
            for name, value in self.named.items():
                value.data.copy_(state.get_tensor(f"weight {name}"))
                moments = {kind: state.get_tensor(f"{kind} {name}") for kind in _MOMENTS if f"{kind} {name}" in held}
                if moments:
                    self.optimizer.state[value] = moments
        self._forget_after(self.step)
        return True

    def _note(self, measures: Mapping[str, float], pace: float, report: Callable[[str], None]) -> None:
        """Tell people and the log how it goes."""
        with (self.folder / PROGRESS).open("a") as log:
            log.write(json.dumps({"step": self.step, **measures}) + "\n")
        left = (self.schedule.steps - self.step) * pace / 60
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in measures.items())
        report(f"step {self.step}/{self.schedule.steps}  {numbers}  {pace * 1000:.0f} ms a step  {left:.0f} min left")
        draw_curve(_lines(self.folder / PROGRESS), self.folder / CURVE)

    def _forget_after(self, step: int) -> None:
        """Drop lines of the log that tell of steps after the state."""
        path = self.folder / PROGRESS
        if path.exists():
            kept = [line for line in _lines(path) if line["step"] <= step]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def _groups(named: Mapping[str, nn.Parameter], slow: str) -> list[dict[str, object]]:
    """Matrices decay, vectors do not; each kind at two paces."""
    out: list[dict[str, object]] = []
    for is_slow, pace in ((False, 1.0), (True, 1 / 3)):
        known = [one for name, one in named.items() if bool(re.search(slow, name)) == is_slow]
        out.append({"params": [one for one in known if one.ndim > 1], "weight_decay": 0.03, "pace": pace})
        out.append({"params": [one for one in known if one.ndim <= 1], "weight_decay": 0.0, "pace": pace})
    return [group for group in out if group["params"]]


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _mean(measures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in measures) / len(measures) for name in measures[0]}
