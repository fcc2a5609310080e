"""The benchmark's commands: each computes its results, and writes tables, JSON and figures."""

import shlex
from pathlib import Path

import numpy as np

from . import localisation as places
from . import report
from . import solar as cells
from .corruptions import CORRUPTIONS, corrupt
from .datasets import DEVELOPMENT, POOL, SETS, TEST, load_folder, load_set, load_zoo, split
from .evaluations import Evaluations, load_predictor
from .methods import ABLATIONS, METHODS
from .protocol import metrics, run_pairs, summary

CORRUPTED_SETS = ("clothing", "solar cells", "photos")
CORRUPTED_METHODS = (
    "diffpath, default",
    "diffpath, six features",
    "default and image quality",
    "frozen features",
    "image quality",
)
CORRUPTED_COUNT = {1: 10, 2: 10, 3: 30, 4: 10, 5: 10}  # images of each kind, by severity


def fetch(arguments):
    for name in SETS:
        made = load_set(name)
        print(f"{name:<15}{len(made.images):>5} images of {len(set(made.sources)):>4} files, checksum {made.checksum}")


def pairs(arguments):
    """All ordered pairs of the chosen sets, every method."""
    evaluations = Evaluations(load_predictor(arguments.model))
    sets, splits = _sets(arguments)
    rows = {}
    for name in arguments.methods:
        method = METHODS[name]
        features = {key: method.features(evaluations, made.images) for key, made in sets.items()}
        results = run_pairs(features, splits, method.detector, list(sets), arguments.seeds)
        rows[name] = {"evaluations": method.evaluations, "group": method.group, "results": results}
        print(report.pair_line(name, summary(results)), flush=True)
    title = "pairs" if arguments.sets == "development" else "pairs-all"
    report.write_pairs(arguments.output, _title(title, arguments), rows, _provenance(arguments, evaluations, sets))


def ablations(arguments):
    """What each part of the method contributes, on the development sets."""
    base = load_predictor(arguments.model)
    arguments.sets = "development"
    sets, splits = _sets(arguments)
    rows = {}
    for name, ablation in ABLATIONS.items():
        if name != "default" and (ablation.group not in arguments.groups or name in arguments.leave_out):
            continue
        predictor = load_predictor(ablation.model()) if ablation.model else base
        evaluations = Evaluations(predictor, **ablation.evaluations)
        features = {key: ablation.features(evaluations, made.images) for key, made in sets.items()}
        results = run_pairs(features, splits, ablation.detector, list(sets), arguments.seeds)
        rows[name] = {"evaluations": ablation.count, "group": ablation.group, "results": results}
        print(report.pair_line(name, summary(results)), flush=True)
    report.write_pairs(
        arguments.output, _title("ablations", arguments), rows, _provenance(arguments, Evaluations(base), sets)
    )


def corruptions(arguments):
    """Clean against corrupted test images, by kind and severity, for the first split."""
    arguments.seeds = [0]
    evaluations = Evaluations(load_predictor(arguments.model))
    sets = {name: load_set(name) for name in CORRUPTED_SETS}
    rows = {}
    for inside, made in sets.items():
        parts = split(made.sources, 0)
        fitted = {}
        for name in CORRUPTED_METHODS:
            features = METHODS[name].features(evaluations, made.images)
            detector = METHODS[name].detector(0).fit(features[parts["fit"]])
            fitted[name] = detector, detector.score_samples(features[parts["test"]])
        for severity in _middle_first(arguments.severities):
            clean = made.images[parts["test"]][: CORRUPTED_COUNT[severity]]
            for kind in CORRUPTIONS:
                corrupted = corrupt(clean, kind, severity)
                for name, (detector, normal) in fitted.items():
                    scores = detector.score_samples(METHODS[name].features(evaluations, corrupted))
                    rows[inside, kind, severity, name] = metrics(normal, scores)
            average = np.mean([rows[inside, kind, severity, CORRUPTED_METHODS[0]]["auroc"] for kind in CORRUPTIONS])
            print(f"{inside}, severity {severity}: {CORRUPTED_METHODS[0]} {average:.3f}", flush=True)
            report.write_corruptions(arguments.output, rows, CORRUPTED_COUNT, _provenance(arguments, evaluations, sets))


def solar(arguments):
    """Functional against defective solar cells, at several resolutions, whole and tiled."""
    predictor = load_predictor(arguments.model)
    rows = {}
    for views, counts in ((["32"], arguments.most_cells), (arguments.views, arguments.cells)):
        for (view, reading), row in cells.measure(predictor, views, *counts, arguments.seeds).items():
            rows[view, tuple(counts), reading] = row
            figures = "   ".join(f"{np.mean(row[part]):.3f}" for part in ("development", "test"))
            print(f"{view:<22}{'{} / {}'.format(*counts):<11}{reading:<60}{figures}", flush=True)
    report.write_solar(arguments.output, rows, _provenance(arguments, Evaluations(predictor), {}))


def localisation(arguments):
    """Pixel AUROC and PRO of maps on pasted patches, for the first split."""
    arguments.seeds = [0]
    evaluations = Evaluations(load_predictor(arguments.model))
    rows = places.measure(evaluations)
    sets = {name: load_set(name) for name in places.GROUNDS}
    report.write_localisation(arguments.output, rows, _provenance(arguments, evaluations, sets))


def _title(title, arguments):
    return title if arguments.count == POOL else f"{title}-{arguments.count}"


def _sets(arguments):
    names = DEVELOPMENT if arguments.sets == "development" else (*DEVELOPMENT, *TEST)
    sets = {name: load_set(name).first(arguments.count) for name in names}
    for given in arguments.folder:
        name, _, folder = given.partition("=")
        sets[name] = load_folder(folder)
    for name in arguments.zoo:
        sets[name] = load_zoo(name)
    splits = {(name, seed): split(made.sources, seed) for name, made in sets.items() for seed in arguments.seeds}
    return sets, splits


def _provenance(arguments, evaluations, sets):
    return {
        "command": f"python -m benchmarks.accuracy {shlex.join(arguments.given)}",
        "model": Path(arguments.model).name,
        "fingerprint": evaluations.predictor.fingerprint,
        "seeds": list(arguments.seeds),
        "sets": {name: {"images": len(made.images), "checksum": made.checksum} for name, made in sets.items()},
    }


def _middle_first(severities):
    """Severity 3 first, so that an interrupted run has what the summary needs."""
    return sorted(severities, key=lambda severity: abs(severity - 3))
