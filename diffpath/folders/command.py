"""The commands on folders: fit a reference, score pictures, look into a reference.

What is wrong with the arguments is said before anything that takes seconds to import is.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..addresses import is_address, name_of
from ..detection.rules import DEFAULT_RULE, RULES, check_rule, describe_rule
from ..errors import ReferenceSetError
from ..options import MethodOptions, ModelOptions
from .listing import list_pictures

if TYPE_CHECKING:
    from ..detection.reference import Reference
    from .scanning import Progress
    from .scoring import Verdicts

TOO_MANY = 3  # exit status: more are flagged than was allowed
_SECONDS = 0.5  # between two lines of progress on a terminal
_SECONDS_OF_A_LOG = 30.0  # and elsewhere
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_Result = TypeVar("_Result")


def fit(what: Sequence[str], output: Path, model: str, options: MethodOptions, **how: Any) -> Reference:
    """Fits a reference on pictures and writes it; goes on where an earlier call was interrupted."""
    _check_here(output)
    paths = list_pictures(what)
    from .scoring import fit_files

    model_options: ModelOptions = how.pop("model_options", ModelOptions())
    working = output.with_name(f"{output.name}.working")
    steps = fit_files(paths, model=model, options=options, model_options=model_options, working=working, **how)
    reference = show(steps)
    reference.save(output)
    shutil.rmtree(working)
    print(f"wrote {output}: {describe(reference)}")
    return reference


def score(
    what: Sequence[str],
    reference: str | Path,
    *,
    csv: Path | None = None,
    parquet: Path | None = None,
    report: Path | None = None,
    maps: Path | None = None,
    rule: str = DEFAULT_RULE,
    level: float | None = None,
    fail_above: float | None = None,
    **how: Any,
) -> int:
    """Scores pictures, writes what is asked for, and returns the exit status; a rule has its usual level."""
    level = _checked_level(rule, level)
    _check_there(reference)
    _check_here(csv, parquet, report, maps)
    paths = list_pictures(what)
    from ..detection.reference import Reference
    from .scoring import score_files

    fitted = Reference.load(reference)
    output = csv or parquet or report
    working = None if output is None else output.with_name(f"{output.name}.working")
    folder = working / "maps" if working and report and maps is None else maps  # a report's, where nobody keeps them
    verdicts = show(score_files(paths, fitted, rule=rule, level=level, working=working, maps=folder, **how))
    if report is not None:
        from .report import write_report

        words = describe_rule(rule, level)
        write_report(verdicts, report, f"{', '.join(what)} against {name_of(reference)}; flagged: {words}")
    from .tables import without_maps, write_csv, write_parquet

    kept = verdicts if maps is not None else without_maps(verdicts)
    if csv is not None:
        write_csv(kept, csv)
    if parquet is not None:
        write_parquet(kept, parquet)
    if working is None:
        _print_ranked(verdicts)
    else:
        shutil.rmtree(working)
    print(_summary(verdicts), file=sys.stderr)
    if fail_above is not None and verdicts.share_flagged > fail_above:
        print(f"more than {fail_above:.2%} are flagged", file=sys.stderr)
        return TOO_MANY
    return 0


def _checked_level(rule: str, level: Any) -> float:
    """A rule's number, by default its usual one."""
    if level is None and rule in RULES:
        level = RULES[rule].default_level
    check_rule(rule, level)
    return level


def _check_there(reference: str | Path) -> None:
    if is_address(reference):
        return
    try:
        Path(reference).open("rb").close()
    except OSError as error:
        raise ReferenceSetError.unreadable(reference, error.strerror or error) from error


def _check_here(*outputs: Path | None) -> None:
    """Of ``s3://bucket/out.csv`` a path makes ``s3:/bucket/out.csv``, whose folders would be made here."""
    for path in filter(None, outputs):
        if _SCHEME.fullmatch(path.parts[0]) and not Path(path.parts[0]).exists():
            raise ValueError(
                f"{path} is an address, and files are written on this machine only; give a path, and copy it there"
            )


def describe(reference: Reference) -> str:
    """What a reference is, in a line."""
    made_by, detector = reference.provenance, reference.detector
    count = len(detector.reference_scores_)
    smallest = f", p-values from {detector.smallest_p_value_:.2g}" if detector.smallest_p_value_ else ""
    return f"{count:,} pictures, model {made_by['model']} in {made_by['dtype']}{smallest}"


def describe_whole(reference: Reference) -> list[tuple[str, str]]:
    """All that a reference says of itself: pairs of a label and a text."""
    made_by = reference.provenance
    options = ", ".join(f"{name} {value}" for name, value in made_by["options"].items() if value is not None)
    return [
        ("Fitted on", f"{len(reference.detector.reference_scores_):,} pictures"),
        ("p-values", f"by {len(reference.detector.calibration_scores_):,} of them, by fits that did not see them"),
        ("Model", f"{made_by['model']} ({made_by['model_fingerprint']}) in {made_by['dtype']}"),
        ("Options", options),
        ("Detector", f"{type(reference.detector).__name__} of {reference.detector.n_features_in_} numbers"),
        ("Anomaly maps", "yes" if reference.local is not None else "no: it knows nothing of places"),
        *((name.replace("_", " ").capitalize(), str(value)) for name, value in reference.description.items()),
    ]


def show(steps: Generator[Progress, None, _Result]) -> _Result:
    """Runs a generator of progress to its end, with a line on standard error now and then."""
    is_terminal, shown = sys.stderr.isatty(), time.monotonic()
    while True:
        try:
            step = next(steps)
        except StopIteration as finished:
            if is_terminal:
                print(file=sys.stderr)
            return finished.value
        if time.monotonic() - shown < (_SECONDS if is_terminal else _SECONDS_OF_A_LOG):
            continue
        shown = time.monotonic()
        left = f", {step.seconds_left:,.0f} s left" if step.seconds_left is not None else ""
        line = f"{step.label}: {step.done:,} of {step.total:,}, {step.rate:,.1f} images/s{left}"
        print(f"\r{line:<79}" if is_terminal else line, end="" if is_terminal else "\n", file=sys.stderr, flush=True)


def _print_ranked(verdicts: Verdicts) -> None:
    """The flagged ones, the most anomalous first, a line each with tabs, and those that could not be read."""
    for place in verdicts.ranked():
        if verdicts.flagged[place]:
            said = verdicts.explanations[place]
            print(f"{verdicts.scores[place]:.4g}\t{verdicts.p_values[place]:.2g}\t{verdicts.paths[place]}\t{said}")
    for path, error in zip(verdicts.paths, verdicts.errors):
        if error:
            print(f"\t\t{path}\t{error}")


def _summary(verdicts: Verdicts) -> str:
    flagged, unreadable = int(verdicts.flagged.sum()), sum(map(bool, verdicts.errors))
    return (
        f"{verdicts.num_scored:,} scored, {flagged:,} flagged ({verdicts.share_flagged:.1%}, score from "
        f"{verdicts.threshold:.4g}), {unreadable:,} could not be read"
    )
