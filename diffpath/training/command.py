"""A training from its configuration to the model folder, interrupted and resumed as need be."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from .config import Config, read_config

if TYPE_CHECKING:
    import torch

    from .trainer import Trainer


def train_from_file(path: Path, device: str | None = None, restart: bool = False) -> dict[str, Any]:
    """:func:`train` with the configuration of a file."""
    return train(read_config(path), device, restart, f"python -m diffpath train {path.name}")


def train(
    config: Config,
    device: str | torch.device | None = None,
    restart: bool = False,
    command: str = "diffpath.training.command.train",
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains as a configuration says and writes the model into its output folder.

    Goes on from the output's checkpoint, if there is one. An interruption (SIGINT, SIGTERM)
    ends the run after the step that it falls in, with a checkpoint.

    Args:
        config: a :class:`diffpath.training.config.Config`
        device: a torch device; by default the best one
        restart: whether a checkpoint is ignored
        command: said in the model card
        log: called with lines of progress; by default they are printed

    Returns:
        the metrics, as written to ``model/metrics.json``

    Raises:
        ValueError: if the configuration, its folders or its checkpoint is not valid
    """
    from .crops import load_crops
    from .report import Reporter
    from .trainer import Trainer, checkpoint_path

    say = log or (lambda line: print(line, flush=True))
    crops = load_crops(config.data, config.seed, say)
    trainer = Trainer(config, crops, device)
    if checkpoint_path(config).exists() and not restart:
        trainer.load_checkpoint()
        say(f"goes on after step {trainer.step}")
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    say(
        f"{len(crops.train)} crops, {parameters / 1e6:.2f} M parameters, {str(trainer.dtype).removeprefix('torch.')} "
        f"on {trainer.device}"
    )
    with _Interruption() as interruption:
        _loop(trainer, interruption, say)
    trainer.save_checkpoint()
    metrics = Reporter(config, crops, command).write(trainer)
    held_out = sum(metrics["held_out_loss"]) / len(metrics["timesteps"])
    say(f"step {trainer.step}: held-out loss {held_out:.4f}, see {config.output}/model")
    return metrics


def _loop(trainer: Trainer, interruption: _Interruption, log: Callable[[str], None]) -> None:
    options, shown = trainer.options, time.monotonic()
    while trainer.step < options.steps and not trainer.out_of_time and not interruption.happened:
        trainer.train_step()
        if trainer.step % options.checkpoint_every == 0:
            trainer.save_checkpoint()
        if time.monotonic() - shown >= 10 or trainer.step == options.steps:
            shown = time.monotonic()
            log(_progress(trainer))


def _progress(trainer: Trainer) -> str:
    recent = trainer.losses[-50:]
    per_step = trainer.seconds / trainer.step
    left = (trainer.options.steps - trainer.step) * per_step
    return (
        f"step {trainer.step}/{trainer.options.steps}  loss {sum(recent) / len(recent):.4f}  "
        f"{trainer.options.batch_size / per_step:.0f} images/s  processor {trainer.cpu_seconds / 60:.1f} min  "
        f"left at most {left / 60:.0f} min"
    )


class _Interruption:
    """Notes SIGINT and SIGTERM, for the loop to end between two steps; a second one ends at once."""

    happened = False

    def __enter__(self) -> _Interruption:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.happened:
            sys.exit(128 + number)
        self.happened = True
