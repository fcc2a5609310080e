"""Runs the accuracy benchmark.

    python -m benchmarks.accuracy fetch          # the packages, the image sets
    python -m benchmarks.accuracy pairs          # all ordered pairs, every method
    python -m benchmarks.accuracy supervised     # the pairs by a classifier that has seen both sets
    python -m benchmarks.accuracy supervised-corruptions
    python -m benchmarks.accuracy calibration    # how much of a set's own kind is flagged
    python -m benchmarks.accuracy ablations      # development sets only
    python -m benchmarks.accuracy corruptions
    python -m benchmarks.accuracy large-pairs    # pictures larger than the model, with zoom and without
    python -m benchmarks.accuracy large-corruptions --severities 3
    python -m benchmarks.accuracy solar
    python -m benchmarks.accuracy localisation
    python -m benchmarks.accuracy local-score    # whether an image's most unusual place helps its score
    python -m benchmarks.accuracy all            # all of these

    python -m benchmarks.accuracy photographs --folder ~/pictures
                                                 # any photographs, corrupted, and the free ones; see photographs.py
    python -m benchmarks.accuracy photograph-levels --folder ~/pictures
                                                 # clean ones flagged, with few of them as the reference and with many
    python -m benchmarks.accuracy tiles --folder ~/surfaces
                                                 # defects with masks, see tiles.py
    python -m benchmarks.accuracy paper --zoo cifar10 cifar100 --folder svhn=~/svhn celeba=~/celeba
                                                 # the papers' pairs and protocol, see paper.py

Network evaluations are cached, so that an interrupted run goes on. Tables (Markdown, JSON)
and figures go to ``benchmarks/results``.

``paper`` runs those of the papers' twelve pairs whose sets are given: cifar10, svhn, celeba,
cifar100 and textures. A folder has subfolders ``train`` and ``test`` with image files; a set
that is only an outlier needs no ``train``, and may have its images in the folder itself.
FiftyOne's zoo has cifar10 and cifar100, and needs torchvision to download them. ``pairs``
takes any set in the same two ways, of which it adds the test split to its own.
"""

import argparse
import sys
from pathlib import Path

from . import runs
from .corruptions import SEVERITIES
from .datasets import POOL
from .given import SetError
from .methods import ABLATIONS, METHODS
from .paper import COUNT
from .solar import VIEWS

COMMANDS = {
    "fetch": runs.fetch,
    "pairs": runs.pairs,
    "supervised": runs.supervised,
    "supervised-corruptions": runs.supervised_corruption_kinds,
    "calibration": runs.calibration,
    "paper": runs.paper,
    "ablations": runs.ablations,
    "corruptions": runs.corruptions,
    "large-pairs": runs.large_pairs,
    "large-corruptions": runs.large_corruptions,
    "photographs": runs.photographs,
    "photograph-levels": runs.photograph_levels,
    "solar": runs.solar,
    "localisation": runs.localisation,
    "local-score": runs.local_score,
    "tiles": runs.tiles,
}
ONE_FOLDER = ("photographs", "photograph-levels", "tiles")
ALL = [name for name in COMMANDS if name not in ("paper", *ONE_FOLDER)]  # whose sets are the user's


def main(argv=None):
    """Runs a command.

    Args:
        argv: the arguments, by default the command line's

    Returns:
        the exit status: 0, or 1 where a set that was given can't be used, which is said in one sentence
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=(*COMMANDS, "all"))
    parser.add_argument("--model", default="bundled", help="the base model: bundled, or a diffusers folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of splits and fits")
    parser.add_argument("--sets", choices=("development", "all"), default="development", help="all adds the test sets")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), metavar="NAME", help="of pairs and paper; all by default"
    )
    parser.add_argument(
        "--folder",
        nargs="+",
        action="extend",
        default=[],
        type=_folder,
        metavar="NAME=PATH",
        help="the user's own sets; of photographs PATH is enough",
    )
    parser.add_argument("--zoo", nargs="+", default=[], metavar="NAME", help="sets of FiftyOne's zoo")
    groups = list(dict.fromkeys(ablation.group for ablation in ABLATIONS.values()))
    parser.add_argument("--groups", nargs="+", default=groups, choices=groups, help="of ablations")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="NAME", help="ablations of these groups not to run"
    )
    parser.add_argument(
        "--count",
        type=int,
        help=f"images of each set, of pairs and ablations ({POOL}); of each split and seed, of paper ({COUNT}; 0: all)",
    )
    parser.add_argument("--severities", type=int, nargs="+", default=list(SEVERITIES), help="of corruptions")
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=list(VIEWS), help="of solar cells")
    parser.add_argument(
        "--cells", type=int, nargs=2, default=[120, 60], metavar="N", help="functional and defective solar cells"
    )
    parser.add_argument(
        "--most-cells", type=int, nargs=2, default=[300, 300], metavar="N", help="the same, at 32 pixels"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    arguments = parser.parse_args(argv)
    arguments.given = sys.argv[1:] if argv is None else list(argv)
    unnamed = [path for name, path in arguments.folder if not name]
    if unnamed and arguments.command not in ONE_FOLDER:
        parser.error(f"argument --folder: must be NAME=PATH, got {unnamed[0]!r}")
    try:
        for name in ALL if arguments.command == "all" else [arguments.command]:
            COMMANDS[name](argparse.Namespace(**vars(arguments)))  # its own: commands change them
    except SetError as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _folder(given):
    name, is_named, path = given.partition("=")
    if not is_named:
        return None, given
    if not (name and path):
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, got {given!r}")
    return name, path


if __name__ == "__main__":
    sys.exit(main())
