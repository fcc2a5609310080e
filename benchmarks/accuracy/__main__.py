"""Runs the accuracy benchmark.

    python -m benchmarks.accuracy fetch          # the packages, the image sets
    python -m benchmarks.accuracy pairs          # all ordered pairs, every method
    python -m benchmarks.accuracy ablations      # development sets only
    python -m benchmarks.accuracy corruptions
    python -m benchmarks.accuracy solar
    python -m benchmarks.accuracy localisation
    python -m benchmarks.accuracy all

Network evaluations are cached, so that an interrupted run goes on. Tables (Markdown, JSON)
and figures go to ``benchmarks/results``. The sets of the papers are used where the user
has them: ``--folder SVHN=~/svhn`` (image files), ``--zoo cifar10 cifar100``.
"""

import argparse
import sys
from pathlib import Path

from . import runs
from .corruptions import SEVERITIES
from .datasets import POOL
from .methods import ABLATIONS, METHODS
from .solar import VIEWS

COMMANDS = {
    "fetch": runs.fetch,
    "pairs": runs.pairs,
    "ablations": runs.ablations,
    "corruptions": runs.corruptions,
    "solar": runs.solar,
    "localisation": runs.localisation,
}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=(*COMMANDS, "all"))
    parser.add_argument("--model", default="bundled", help="the base model: bundled, or a diffusers folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of splits and fits")
    parser.add_argument("--sets", choices=("development", "all"), default="development", help="all adds the test sets")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME", help="of pairs; all by default")
    parser.add_argument("--folder", action="append", default=[], metavar="NAME=PATH", help="the user's own set")
    parser.add_argument("--zoo", nargs="+", default=[], metavar="NAME", help="sets of FiftyOne's zoo, test split")
    groups = list(dict.fromkeys(ablation.group for ablation in ABLATIONS.values()))
    parser.add_argument("--groups", nargs="+", default=groups, choices=groups, help="of ablations")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="NAME", help="ablations of these groups not to run"
    )
    parser.add_argument("--count", type=int, default=POOL, help="images of each set, of pairs and ablations")
    parser.add_argument("--severities", type=int, nargs="+", default=list(SEVERITIES), help="of corruptions")
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=list(VIEWS), help="of solar cells")
    parser.add_argument(
        "--cells", type=int, nargs=2, default=[120, 60], metavar="N", help="functional and defective solar cells"
    )
    parser.add_argument(
        "--most-cells", type=int, nargs=2, default=[300, 300], metavar="N", help="the same, at 32 pixels"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    arguments = parser.parse_args()
    arguments.given = sys.argv[1:]
    for name in COMMANDS if arguments.command == "all" else [arguments.command]:
        COMMANDS[name](arguments)


if __name__ == "__main__":
    main()
