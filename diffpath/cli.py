"""``diffpath COMMAND``, the same as ``python -m diffpath COMMAND``: the commands of the library.

A command is a function whose parameters are its arguments, flags and their help: tyro reads
them, and dataclasses among them, so that no flag is said twice. Each is made when it is called,
as most of them bring torch.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from . import __version__
from .folders.engines import LOCAL, EngineLike, RayEngine


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: one line of help
        make: gives the function that is called with its arguments; from the command line, as what is left out can
            depend on what is given
    """

    summary: str
    make: Callable[[Sequence[str]], Callable[..., int | None]]


def _models(_: Sequence[str]) -> Callable[..., None]:
    from .models.cards import MODEL_CARDS

    def models() -> None:
        for card in MODEL_CARDS:
            print(f"{card.id}: {card.facts()}")
        print("Of these only the bundled model was run by diffpath's authors.", end=" ")
        print("Facts are from the models' pages and papers.")

    return models


def _convert(_: Sequence[str]) -> Callable[..., None]:
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


def _train(_: Sequence[str]) -> Callable[..., None]:
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


@dataclass(frozen=True)
class Where:
    """Where pictures are scored.

    Attributes:
        engine: local, or ray: the actors of a Ray cluster
        address: of the cluster, such as auto; by default the one that runs here, or a new one
        num_actors: processes that score; by default as many as there is room for
        gpus_per_actor: by default 1 where there are some
    """

    engine: str = LOCAL
    address: str | None = None
    num_actors: int | None = None
    gpus_per_actor: float | None = None

    @property
    def chosen(self) -> EngineLike:
        """As :func:`diffpath.compute_diffpath` takes it."""
        of_ray = (self.address, self.num_actors, self.gpus_per_actor)
        if self.engine == "ray":
            return RayEngine(*of_ray)
        if of_ray != (None, None, None):
            raise ValueError("--address, --num-actors and --gpus-per-actor are Ray's; add --engine ray")
        return self.engine


_HERE = Where()


def _fit(given: Sequence[str]) -> Callable[..., None]:
    from .folders.command import fit as fit_pictures
    from .options import PRESETS, MethodOptions, ModelOptions

    # Not checked while tyro reads them, so that what is wrong with them is said in diffpath's own sentence
    class MethodFlags(MethodOptions):
        def __post_init__(self) -> None: ...

    class ModelFlags(ModelOptions):
        def __post_init__(self) -> None: ...

    preset = _preset_in(given)
    usual, as_said = MethodFlags(preset=preset, **PRESETS.get(preset, {})), ModelFlags()

    def fit(
        pictures: Positional[tuple[str, ...]],
        output: Annotated[Path, arg(aliases=["-o"])] = Path("reference.safetensors"),
        model: str = "bundled",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        num_workers: int = 4,
        method: Annotated[MethodFlags, OmitArgPrefixes] = usual,
        loading: Annotated[ModelFlags, OmitArgPrefixes] = as_said,
        where: Annotated[Where, OmitArgPrefixes] = _HERE,
    ) -> None:
        """Fits a reference on pictures that are as they should be.

        Args:
            pictures: folders, files, patterns in quotes, lists of paths (.txt, .csv), addresses such as
                s3://bucket/good, or - for standard input
            output: the reference
            model: "bundled", a diffusers folder or a hub id
            device: a torch device, or several with commas
            dtype: float32, bfloat16 or float16
            batch_size: images that are scored together
            num_workers: threads that decode
            method: what determines an image's features
            loading: how the model is loaded
            where: here or elsewhere
        """
        fit_pictures(
            pictures,
            output,
            model,
            MethodOptions(**asdict(method)),
            model_options=ModelOptions(**asdict(loading)),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            num_workers=num_workers,
            engine=where.chosen,
        )

    return fit


def _preset_in(given: Sequence[str]) -> str:
    """The preset that is given: it says what the options are that are not."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--preset", nargs="?", default="default")
    return reader.parse_known_args(given)[0].preset or "default"


def _score(_: Sequence[str]) -> Callable[..., int]:
    from .detection.rules import DEFAULT_RULE
    from .folders.command import score as score_pictures

    def score(
        pictures: Positional[tuple[str, ...]],
        reference: str,
        csv: Path | None = None,
        parquet: Path | None = None,
        report: Path | None = None,
        maps: Path | None = None,
        rule: str = DEFAULT_RULE,
        level: float | None = None,
        fail_above: float | None = None,
        model: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        num_workers: int = 4,
        where: Annotated[Where, OmitArgPrefixes] = _HERE,
    ) -> int:
        """Scores pictures by a reference; without a file to write it prints those that are flagged.

        Args:
            pictures: folders, files, patterns in quotes, lists of paths (.txt, .csv), addresses such as
                s3://bucket/new, or - for standard input
            reference: what diffpath fit, or a run, has written: a path or an address
            csv: a table of all pictures
            parquet: the same as Parquet
            report: a page with the most anomalous pictures, that opens without a network
            maps: a folder for maps of where pictures are unusual
            rule: which are flagged: false_positive_rate, false_discovery_rate, percentile, count or score
            level: the rule's number: by default the share 0.05 of pictures like the reference's
            fail_above: exit with status 3 where a larger share than this is flagged
            model: where the reference's model is, if not where it was
            device: a torch device, or several with commas
            batch_size: images that are scored together
            num_workers: threads that decode
            where: here or elsewhere
        """
        return score_pictures(
            pictures,
            reference,
            csv=csv,
            parquet=parquet,
            report=report,
            maps=maps,
            rule=rule,
            level=level,
            fail_above=fail_above,
            model=model,
            device=device,
            batch_size=batch_size,
            num_workers=num_workers,
            engine=where.chosen,
        )

    return score


def _inspect(_: Sequence[str]) -> Callable[..., None]:
    def inspect(reference: Positional[str]) -> None:
        """Says what a reference was made of.

        Args:
            reference: what diffpath fit, or a run, has written: a path or an address
        """
        from .detection.reference import load_reference
        from .folders.command import describe_whole

        rows = describe_whole(load_reference(reference))
        width = max(len(label) for label, _ in rows)
        for label, text in rows:
            print(f"{label + ':':<{width + 1}} {text}")

    return inspect


def _orphans(_: Sequence[str]) -> Callable[..., None]:
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


def _repair(_: Sequence[str]) -> Callable[..., None]:
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
    "fit": Command("fit a reference on pictures that are as they should be", _fit),
    "score": Command("score pictures by a reference: a table, a page, maps, an exit status for CI", _score),
    "inspect": Command("say what a reference was made of", _inspect),
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
        the exit status: 0, 1 after an error, 2 where the arguments are not understood, 3 where more is flagged than
        was allowed
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
    command = COMMANDS[name].make(arguments[1:])
    summary = COMMANDS[name].summary
    try:
        status = tyro.cli(
            command,
            prog=f"diffpath {name}",
            description=f"{summary[0].upper()}{summary[1:]}.",
            args=arguments[1:],
            registry=_READERS,
        )
    except ValueError as error:
        print(f"diffpath {name}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status or 0


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
