"""Connects the Hugging Face trainer with the job directory: metrics and checkpoints."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from learner.launch.directory import JobDirectory
from learner.training.journal import Journal

COMPLETE = "COMPLETE"
"""Marker of a whole checkpoint, written after everything in it."""

Report = Callable[[Mapping[str, Any]], None]


class Progress(TrainerCallback):  # type: ignore[misc]
    """Passes each step's log on to ``report`` and marks checkpoints when they are whole."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._began = 0.0
        self.step_seconds = 0.0
        """How long the last whole step took."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.step_seconds = time.perf_counter() - self._began

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: Mapping[str, Any], **_: Any
    ) -> None:
        if "loss" in logs:
            self._report({**logs, "step": state.global_step, "total_steps": state.max_steps})

    def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (checkpoint / COMPLETE).touch()


class Enough(TrainerCallback):  # type: ignore[misc]
    """Stops after the first whole epoch whose mean loss fell below ``loss``, in nats a token."""

    def __init__(self, loss: float, say: Callable[[str], None]) -> None:
        self._loss = loss
        self._say = say
        self._epoch: list[float] = []

    def on_log(self, *_: Any, logs: Mapping[str, Any], **__: Any) -> None:
        if "loss" in logs:
            self._epoch.append(logs["loss"])

    def on_epoch_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        mean = sum(self._epoch) / len(self._epoch) if self._epoch else math.inf
        self._epoch.clear()
        if mean < self._loss and state.global_step < state.max_steps:
            self._say(f"enough at step {state.global_step}: loss {mean:.3f}")
            control.should_training_stop = True


def last_checkpoint(directory: Path) -> Path | None:
    """The latest whole checkpoint; None when there is none to resume from."""
    whole = (marker.parent for marker in directory.glob(f"checkpoint-*/{COMPLETE}"))
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def resume_from(directory: JobDirectory, journal: Journal) -> str | None:
    """The checkpoint to resume from, in the trainer's form."""
    checkpoint = last_checkpoint(directory.checkpoints)
    if checkpoint is None:
        return None
    journal.say(f"resuming from {checkpoint.name}")
    return str(checkpoint)
