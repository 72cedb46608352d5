"""The training loop: steps, learning rates, the log, and a state on disk that a run resumes from bit for bit.

Every random choice of a step follows from the step's number, and a state holds every parameter with its optimiser
moments, so that an interrupted and resumed run ends with the same bits as an uninterrupted one.
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
from training.recipe import Metrics, TrainableModel
from vlm.checkpoint.weight_rules import NOTHING
from vlm.errors import CheckpointError

STATE, PROGRESS, CURVE = "state.safetensors", "progress.jsonl", "curve.png"
_WARM_UP = 200  # steps
_DECAY = 0.4  # of all steps
_SLOW = 1 / 3  # of the learning rate
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step: a warm-up, a plateau, and a linear decay over the last part.

    A run that is resumed with more steps gets a longer plateau, so its rate rises again.
    """

    learning_rate: float
    steps: int

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        remaining = (self.steps - step) / (_DECAY * self.steps)
        return self.learning_rate * min((step + 1) / _WARM_UP, 1.0) * min(max(remaining, 0.01), 1.0)


class Trainer:
    """A model under training, its optimiser, and the folder of its state and log.

    Args:
        trainable: The model and its loss.
        batches: The data of every step.
        schedule: Learning rates and number of steps.
        folder: For the state, the log and the loss curve; made if missing.
        slow: A regular expression; parameters whose name contains a match learn at a third of the rate.
    """

    def __init__(
        self, trainable: TrainableModel, batches: Batches, schedule: Schedule, folder: Path, slow: str = NOTHING
    ) -> None:
        self.trainable, self.batches, self.schedule, self.folder = trainable, batches, schedule, folder
        self.parameters = dict(trainable.module.named_parameters())
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.parameters, slow), betas=(0.9, 0.99), fused=True)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, until: int, report: Callable[[str], None], every: int = 50, save_every: int = 500) -> None:
        """Train up to step ``until``; log and report every ``every`` steps, save the state every ``save_every``."""
        recent: list[Metrics] = []
        began, first = time.perf_counter(), self.step
        while self.step < until:
            recent.append(self.train_step())
            if self.step % every == 0 or self.step == until:
                seconds_per_step = (time.perf_counter() - began) / (self.step - first)
                self._log(_mean(recent), seconds_per_step, report)
                recent = []
            if self.step % save_every == 0 or self.step == until:
                self.save()

    def train_step(self) -> Metrics:
        """One optimiser step; returns its loss and metrics."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.at(self.step) * group["rate_factor"]
        batch = self.batches.step(self.step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, metrics = self.trainable.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without annotations
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0, foreach=True)
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.item(), **metrics}

    def save(self) -> None:
        """Write the state. The previous one is replaced only when the new one is complete."""
        tensors = {f"weight {name}": value.detach() for name, value in self.parameters.items()}
        for name, value in self.parameters.items():
            moments = self.optimizer.state.get(value, {})
            tensors |= {f"{kind} {name}": moments[kind] for kind in _MOMENTS if kind in moments}
        partial = self.folder / f"{STATE}.partial"
        save_file(tensors, partial, metadata={"step": str(self.step), "fingerprint": self.trainable.fingerprint})
        partial.replace(self.folder / STATE)

    def resume(self) -> bool:
        """Load the saved state; False if there is none.

        Raises:
            CheckpointError: The state was trained with another vocabulary.
        """
        path = self.folder / STATE
        if not path.exists():
            return False
        fingerprint = self.trainable.fingerprint
        with safe_open(path, framework="pt") as state:
            metadata = state.metadata()
            self.step = int(metadata["step"])
            if metadata.get("fingerprint", fingerprint) != fingerprint:
                raise CheckpointError(f"{path} was trained with another vocabulary: start again in another folder.")
            saved = set(state.keys())
            for name, value in self.parameters.items():
                value.data.copy_(state.get_tensor(f"weight {name}"))
                moments = {kind: state.get_tensor(f"{kind} {name}") for kind in _MOMENTS if f"{kind} {name}" in saved}
                if moments:
                    self.optimizer.state[value] = moments
        self._truncate_log(self.step)
        return True

    def _log(self, metrics: Metrics, seconds_per_step: float, report: Callable[[str], None]) -> None:
        with (self.folder / PROGRESS).open("a") as log:
            log.write(json.dumps({"step": self.step, **metrics}) + "\n")
        minutes = (self.schedule.steps - self.step) * seconds_per_step / 60
        values = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        milliseconds = f"{seconds_per_step * 1000:.0f} ms per step"
        report(f"step {self.step}/{self.schedule.steps}  {values}  {milliseconds}  {minutes:.0f} min left")
        draw_curve(_read_log(self.folder / PROGRESS), self.folder / CURVE)

    def _truncate_log(self, step: int) -> None:
        """Drop the lines of steps after the saved state: they will run again."""
        path = self.folder / PROGRESS
        if path.exists():
            kept = [line for line in _read_log(path) if line["step"] <= step]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def _parameter_groups(parameters: Mapping[str, nn.Parameter], slow: str) -> list[dict[str, object]]:
    """Weight decay for matrices and none for vectors, each at the full and at the slow learning rate."""
    groups: list[dict[str, object]] = []
    for is_slow, factor in ((False, 1.0), (True, _SLOW)):
        selected = [one for name, one in parameters.items() if bool(re.search(slow, name)) == is_slow]
        matrices, vectors = ([one for one in selected if (one.ndim > 1) == wanted] for wanted in (True, False))
        groups.append({"params": matrices, "weight_decay": 0.03, "rate_factor": factor})
        groups.append({"params": vectors, "weight_decay": 0.0, "rate_factor": factor})
    return [group for group in groups if group["params"]]


def _read_log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _mean(metrics: Sequence[Metrics]) -> dict[str, float]:
    return {name: sum(one[name] for one in metrics) / len(metrics) for name in metrics[0]}
