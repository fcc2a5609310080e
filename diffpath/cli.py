"""``diffpath COMMAND``, the same as ``python -m diffpath COMMAND``: the commands of the library.

A command is a function whose parameters are its arguments, flags and their help: tyro reads
them, and dataclasses among them, so that no flag is said twice. Each is made when it is called,
as most of them bring torch.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from . import __version__


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: one line of help
        make: gives the function that is called with its arguments
    """

    summary: str
    make: Callable[[], Callable[..., None]]


def _models() -> Callable[..., None]:
    from .models.cards import MODEL_CARDS

    def models() -> None:
        for card in MODEL_CARDS:
            print(f"{card.id}: {card.facts()}")
        print("Of these only the bundled model was run by diffpath's authors.", end=" ")
        print("Facts are from the models' pages and papers.")

    return models


def _convert() -> Callable[..., None]:
    from .models.convert import Architecture, convert_checkpoint

    class Flags(Architecture):
        """Not checked while tyro reads it, so that what is wrong with it is said in diffpath's own sentence."""

        def __post_init__(self) -> None: ...

    def convert(
        checkpoint: Positional[Path], folder: Positional[Path], architecture: Annotated[Flags, OmitArgPrefixes]
    ) -> None:
        """Turns a checkpoint into a diffusers folder; flags are those of the original scripts.

        Args:
            checkpoint: a .pt file of improved-diffusion or guided-diffusion; EMA weights are best
            folder: the diffusers folder to write
            architecture: the flags that the checkpoint was trained with
        """
        convert_checkpoint(checkpoint, folder, Architecture(**asdict(architecture)))
        print(f"wrote {folder}; use it with model={str(folder)!r}")

    return convert


def _train() -> Callable[..., None]:
    from .training.command import train_from_file

    def train(config: Positional[Path], device: str | None = None, restart: FlagCreatePairsOff[bool] = False) -> None:
        """Trains a diffusion model on folders of images, or goes on with a training that was interrupted.

        Args:
            config: a .toml or .json file; python -m pydoc diffpath.training.config explains it
            device: a torch device; by default CUDA, then MPS, then the CPU
            restart: begin anew, although the output holds a checkpoint
        """
        train_from_file(config, device, restart)

    return train


def _orphans() -> Callable[..., None]:
    from .dataset.orphans import find_orphans, remove_orphan

    def orphans(remove: FlagCreatePairsOff[bool] = False) -> None:
        """Lists folders of maps and references that no run of FiftyOne's database has any more.

        Args:
            remove: delete them; what an early version left, which does not say whose it is, stays
        """
        found = list(find_orphans())
        for orphan in found:
            gone = remove and orphan.removable
            if gone:
                remove_orphan(orphan)
            of = f"of dataset {orphan.owner!r}" if orphan.owner else "of an early version: delete it if nobody needs it"
            about = f"{orphan.num_files:,} files, {orphan.num_bytes / 1e6:.1f} MB, {of}"
            print(f"{'removed ' if gone else ''}{orphan.path}: {about}")
        if not found:
            print("no files without an owner")
        elif not remove:
            print("diffpath orphans --remove deletes them")

    return orphans


def _repair() -> Callable[..., None]:
    from .dataset.internals import datasets_with_runs
    from .dataset.repair import repair_diffpath

    def repair(datasets: Positional[tuple[str, ...]] = ()) -> None:
        """Mends what a killed process or an older version left half done in datasets, and says what is left to do.

        Args:
            datasets: names; by default all that have a run
        """
        count = 0
        for dataset in datasets_with_runs(datasets):
            for line in repair_diffpath(dataset):
                count += 1
                print(f"{dataset.name}: {line}")
        if not count:
            print("nothing to repair")

    return repair


COMMANDS = {
    "models": Command("list pretrained models that are known to be of use", _models),
    "convert": Command("turn an improved-diffusion or guided-diffusion checkpoint into a diffusers folder", _convert),
    "orphans": Command("list or remove files of runs and datasets that are gone", _orphans),
    "repair": Command("mend what was interrupted, or what an older version left", _repair),
    "train": Command("train a diffusion model on folders of images", _train),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; an error that diffpath raises on purpose is printed as its one sentence.

    Args:
        argv: the arguments, by default the command line's

    Returns:
        the exit status: 0, 1 after an error, 2 where the arguments are not understood
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(_help(), file=sys.stderr)
        return 2
    name = arguments[0]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"diffpath {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"diffpath: there is no command {name!r}; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = COMMANDS[name].make()
    summary = COMMANDS[name].summary
    try:
        tyro.cli(
            command,
            prog=f"diffpath {name}",
            description=f"{summary[0].upper()}{summary[1:]}.",
            args=arguments[1:],
            registry=_READERS,
        )
    except ValueError as error:
        print(f"diffpath {name}: {error}", file=sys.stderr)
        return 1
    return 0


_READERS = ConstructorRegistry()


@_READERS.primitive_rule
def _whole_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[tuple[int, ...]] | None:
    """Several whole numbers with commas, as the original scripts take them, or with spaces."""
    if (get_origin(info.type), get_args(info.type)) != (tuple, (int, ...)):
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="INT,INT,…",
        instance_from_str=lambda given: tuple(int(number) for part in given for number in part.split(",")),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(number, int) for number in value),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: diffpath COMMAND …",
            "",
            "Finds images that don't belong.",
            "",
            *lines,
            "",
            "diffpath COMMAND --help says what a command takes; diffpath --version, which version this is.",
        ]
    )
