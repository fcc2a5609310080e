"""``python -m diffpath train CONFIG``."""

import signal
import sys
import threading
import time
from pathlib import Path

from .config import read_config


def add_arguments(parser):
    """Adds the command's arguments to an ``argparse`` parser."""
    parser.add_argument("config", help="a .toml or .json file; python -m pydoc diffpath.training.config explains it")
    parser.add_argument("--device", help="a torch device; by default CUDA, then MPS, then the CPU")
    parser.add_argument("--restart", action="store_true", help="begin anew, although the output holds a checkpoint")


def run(arguments):
    """Trains, or goes on with a training that was interrupted."""
    command = f"python -m diffpath train {Path(arguments.config).name}"
    train(read_config(arguments.config), arguments.device, arguments.restart, command)


def train(config, device=None, restart=False, command="diffpath.training.command.train", log=None):
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

    log = log or (lambda line: print(line, flush=True))
    crops = load_crops(config.data, config.seed, log)
    trainer = Trainer(config, crops, device)
    if checkpoint_path(config).exists() and not restart:
        trainer.load_checkpoint()
        log(f"goes on after step {trainer.step}")
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    log(
        f"{len(crops.train)} crops, {parameters / 1e6:.2f} M parameters, {str(trainer.dtype).removeprefix('torch.')} "
        f"on {trainer.device}"
    )
    with _Interruption() as interruption:
        _loop(trainer, interruption, log)
    trainer.save_checkpoint()
    metrics = Reporter(config, crops, command).write(trainer)
    held_out = sum(metrics["held_out_loss"]) / len(metrics["timesteps"])
    log(f"step {trainer.step}: held-out loss {held_out:.4f}, see {config.output}/model")
    return metrics


def _loop(trainer, interruption, log):
    options, shown = trainer.options, time.monotonic()
    while trainer.step < options.steps and not trainer.out_of_time and not interruption.happened:
        trainer.train_step()
        if trainer.step % options.checkpoint_every == 0:
            trainer.save_checkpoint()
        if time.monotonic() - shown >= 10 or trainer.step == options.steps:
            shown = time.monotonic()
            log(_progress(trainer))


def _progress(trainer):
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

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        if self.happened:
            sys.exit(128 + number)
        self.happened = True
