"""The benchmark's commands: each computes its results, and writes tables, JSON and figures."""

import shlex
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from . import large, report
from . import local_score as tops
from . import localisation as places
from . import paper as papers
from . import photographs as pictures
from . import solar as cells
from . import tiles as surfaces
from .bounds import LEVEL, flagged_shares, supervised_corruptions, supervised_pairs
from .corruptions import CORRUPTIONS, FAMILIES, corrupt
from .datasets import DEVELOPMENT, POOL, SETS, SMALL, TEST, ZOOM, load_full_set, load_large_set, load_set, split
from .evaluations import Evaluations, load_predictor
from .given import SetError, load_folder, load_zoo
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
BOUNDED = ("diffpath, default", "frozen features", "diffpath fused with frozen features")
CALIBRATED = ("diffpath, default", "diffpath fused with frozen features")
SHOWN_COUNT = 60  # reference images of which a classifier is shown corrupted copies
_AT_ONCE = 1000  # images whose statistics fit in memory


def fetch(arguments):
    for name in SETS:
        made = load_set(name)
        print(f"{name:<15}{len(made.images):>5} images of {len(set(made.sources)):>4} files, checksum {made.checksum}")


def pairs(arguments):
    """All ordered pairs of the chosen sets, every method."""
    evaluations = Evaluations(load_predictor(arguments.model))
    sets = _sets(arguments)
    rows = _rows(arguments, _chosen(arguments, evaluations), sets, permutations(sets, 2))
    title = _title_of_sets("pairs", arguments)
    report.write_pairs(arguments.output, title, rows, _provenance(arguments, evaluations, sets))


def supervised(arguments):
    """The same pairs by a classifier that has seen both sets: what the features allow."""
    evaluations = Evaluations(load_predictor(arguments.model))
    sets = _sets(arguments)
    methods = {name: _on_images(METHODS[name], evaluations)._replace(group="supervised") for name in BOUNDED}

    def judge(features, splits, _, pairs, seeds):
        return supervised_pairs(features, splits, pairs, seeds)

    rows = _rows(arguments, methods, sets, permutations(sets, 2), judge=judge)
    title = _title_of_sets("supervised", arguments)
    report.write_pairs(arguments.output, title, rows, _provenance(arguments, evaluations, sets))


def supervised_corruption_kinds(arguments):
    """The corruptions by a classifier that was shown corrupted reference images: what the descriptor allows."""
    arguments.seeds = [0]
    evaluations = Evaluations(load_predictor(arguments.model))
    method = _on_images(METHODS["diffpath, default"], evaluations)
    family = {kind: name for name, kinds in FAMILIES.items() for kind in kinds}
    shown = {
        "the kind itself": lambda kind: [kind],
        "all kinds": lambda kind: CORRUPTIONS,
        "all other kinds": lambda kind: [other for other in CORRUPTIONS if other != kind],
        "all kinds of other families": lambda kind: [other for other in CORRUPTIONS if family[other] != family[kind]],
    }
    sets, rows = {name: load_set(name) for name in CORRUPTED_SETS}, {}
    for name, made in sets.items():
        parts = split(made.sources, 0)
        clean, normal = (method.features(made.images[parts[part]]) for part in ("fit", "test"))
        seen, asked = (
            {kind: method.features(corrupt(made.images[parts[part]][:count], kind, 3)) for kind in CORRUPTIONS}
            for part, count in (("fit", SHOWN_COUNT), ("test", CORRUPTED_COUNT[3]))
        )
        test = {kind: (normal, anomalies) for kind, anomalies in asked.items()}
        detector = method.detector(0).fit(clean)
        scores = {kind: map(detector.score_samples, pair) for kind, pair in test.items()}
        found = {"none: the density": {kind: metrics(*pair)["auroc"] for kind, pair in scores.items()}}
        found |= {label: supervised_corruptions(clean, seen, test, kinds) for label, kinds in shown.items()}
        for label, row in found.items():
            rows[name, label] = row
            print(f"{name:<14}shown {label:<30}{np.mean(list(row.values())):.3f}", flush=True)
    report.write_supervised_corruptions(arguments.output, rows, _provenance(arguments, evaluations, sets))


def calibration(arguments):
    """How many images of a set's own kind are flagged, with the pictures that they are of as groups and without."""
    evaluations = Evaluations(load_predictor(arguments.model))
    arguments.sets = "all"
    sets, rows = _sets(arguments), {}
    for name in CALIBRATED:
        method = _on_images(METHODS[name], evaluations)
        for key, made in sets.items():
            splits = {seed: split(made.sources, seed) for seed in arguments.seeds}
            X = _features(method, made.images)
            rows[name, key] = flagged_shares(X, made.sources, splits, method.detector, arguments.seeds)
            print("{:<40}{:<16}{:.3f}   with groups {:.3f}".format(name, key, *rows[name, key]), flush=True)
    report.write_calibration(arguments.output, rows, LEVEL, _provenance(arguments, evaluations, sets))


def paper(arguments):
    """The pairs of the papers, as far as their sets were given, every method."""
    files = papers.given_files(arguments.folder, arguments.zoo)
    evaluations = Evaluations(load_predictor(arguments.model))
    count = _count(arguments, papers.COUNT)
    sets, splits = {}, {}
    for name, paths in files.items():
        made, parts = papers.read_set(name, paths, count, arguments.seeds, evaluations.resolution)
        sets[papers.NAMES[name]] = made
        splits |= {(papers.NAMES[name], seed): part for seed, part in parts.items()}
    pairs = _named(papers.runnable(files))
    rows = _rows(arguments, _chosen(arguments, evaluations), sets, pairs, splits)
    provenance = _provenance(arguments, evaluations, sets)
    for name, paths in files.items():
        provenance["sets"][papers.NAMES[name]]["used"] = papers.description(paths, count)
    not_run = {reason: _named(pairs) for reason, pairs in papers.not_run(files).items()}
    report.write_paper(arguments.output, _title("paper", arguments, papers.COUNT), rows, not_run, provenance)


def ablations(arguments):
    """What each part of the method contributes, on the development sets."""
    base = load_predictor(arguments.model)
    arguments.sets = "development"
    sets = _sets(arguments)
    splits, rows = _splits(arguments, sets), {}
    for name, ablation in ABLATIONS.items():
        if name != "default" and (ablation.group not in arguments.groups or name in arguments.leave_out):
            continue
        predictor = load_predictor(ablation.model()) if ablation.model else base
        evaluations = Evaluations(predictor, **ablation.evaluations)
        features = {key: ablation.features(evaluations, made.images) for key, made in sets.items()}
        results = run_pairs(features, splits, ablation.detector, permutations(sets, 2), arguments.seeds)
        rows[name] = {"evaluations": ablation.count, "group": ablation.group, "results": results}
        print(report.pair_line(name, summary(results)), flush=True)
    title = _title("ablations", arguments, POOL)
    report.write_pairs(arguments.output, title, rows, _provenance(arguments, Evaluations(base), sets))


def corruptions(arguments):
    """Clean against corrupted test images, by kind and severity, for the first split."""
    evaluations = Evaluations(load_predictor(arguments.model))
    sets = {name: load_set(name) for name in CORRUPTED_SETS}
    methods = {name: _on_images(METHODS[name], evaluations) for name in CORRUPTED_METHODS}
    _corruptions(arguments, "corruptions", sets, methods, evaluations)


def large_pairs(arguments):
    """All ordered pairs of the sets whose pictures are larger than the model, small and with a larger view."""
    names = [name for name in _set_names(arguments) if name not in SMALL]
    sets = {name: load_large_set(name).first(_count(arguments, POOL)) for name in names}
    predictor = load_predictor(arguments.model)
    methods = large.methods(predictor, zooms=(2, ZOOM), draws=(1 + ZOOM**2,))
    rows = _rows(arguments, methods, sets, permutations(sets, 2))
    title = _title_of_sets("large-pairs", arguments)
    report.write_pairs(arguments.output, title, rows, _provenance(arguments, Evaluations(predictor), sets))


def large_corruptions(arguments):
    """The same as ``corruptions``, of pictures of 224 pixels."""
    predictor = load_predictor(arguments.model)
    sets = {name: load_full_set(name) for name in large.CORRUPTED_SETS}
    _corruptions(arguments, "large-corruptions", sets, large.methods(predictor), Evaluations(predictor))


def _corruptions(arguments, title, sets, methods, evaluations):
    """Tables of what every method, by name, makes of corrupted images of every set."""
    arguments.seeds = [0]
    rows = {}
    for inside, made in sets.items():
        parts = split(made.sources, 0)
        fitted = {}
        for name, method in methods.items():
            features = method.features(made.images)
            detector = method.detector(0).fit(features[parts["fit"]])
            fitted[name] = detector, detector.score_samples(features[parts["test"]])
        for severity in _middle_first(arguments.severities):
            clean = made.images[parts["test"]][: CORRUPTED_COUNT[severity]]
            for kind in CORRUPTIONS:
                corrupted = corrupt(clean, kind, severity)
                for name, (detector, normal) in fitted.items():
                    scores = detector.score_samples(methods[name].features(corrupted))
                    rows[inside, kind, severity, name] = metrics(normal, scores)
            for name in methods:
                average = np.mean([rows[inside, kind, severity, name]["auroc"] for kind in CORRUPTIONS])
                print(f"{inside}, severity {severity}: {name} {average:.3f}", flush=True)
            provenance = _provenance(arguments, evaluations, sets)
            report.write_corruptions(arguments.output, title, rows, CORRUPTED_COUNT, provenance)


def photographs(arguments):
    """Corrupted photographs of usual size, by the whole look and by both."""
    sets, rows, dirty = _photographs(arguments), {}, {}
    methods, both = pictures.looks(arguments.model), _both_looks(arguments)
    for name, images in sets.items():
        for row in pictures.measure(images, methods, _middle_first(arguments.severities), arguments.seeds):
            rows.setdefault(name, []).append(row)
        dirty[name] = list(pictures.measure_without_reference(images, both, arguments.seeds))
        report.print_photographs(name, rows[name])
        report.write_photographs(arguments.output, rows, dirty, _of_photographs(arguments, {n: sets[n] for n in rows}))


def photograph_levels(arguments):
    """How many clean photographs are flagged at a level, with few as the reference and with many."""
    sets, rows = _photographs(arguments), {}
    both = _both_looks(arguments)
    for name, images in sets.items():
        for row in pictures.measure_levels(images, both):
            rows.setdefault(name, []).append(row)
            print("{:<20}{method:<24}{reference:>5}  {flagged:.3f} ± {deviation:.3f}".format(name, **row), flush=True)
    report.write_photograph_levels(arguments.output, rows, _of_photographs(arguments, sets))


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


def tiles(arguments):
    """Defects of surfaces in the user's folder: where the maps point, and good from defective."""
    if len(arguments.folder) != 1:
        raise SetError("tiles needs one folder; give it with --folder PATH")
    ((_, path),) = arguments.folder
    rows = []
    for row in surfaces.measure(Path(path), arguments.model, arguments.seeds):
        rows.append(row)
        print(
            "   ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{value}" for key, value in row.items())
        )
    report.write_tiles(arguments.output, rows, _of_photographs(arguments, {}))


def localisation(arguments):
    """Pixel AUROC and PRO of maps on pasted patches, for the first split."""
    arguments.seeds = [0]
    evaluations = Evaluations(load_predictor(arguments.model))
    grounds = places.GROUNDS if arguments.sets == "development" else (*places.GROUNDS, *places.TEST_GROUNDS)
    rows, ranked = places.measure(evaluations, grounds)
    sets = {name: load_set(name) for name in grounds}
    title = _title_of_sets("localisation", arguments)
    report.write_localisation(arguments.output, title, rows, ranked, _provenance(arguments, evaluations, sets))


def local_score(arguments):
    """Scores with the most unusual place of each image and without, on pairs, pasted patches and solar cells."""
    evaluations = Evaluations(load_predictor(arguments.model))
    rows = tops.measure(evaluations, arguments.seeds)
    sets = {name: load_set(name) for name in (*places.GROUNDS, *places.TEST_GROUNDS)}
    report.write_local_score(arguments.output, rows, _provenance(arguments, evaluations, sets))


def _photographs(arguments):
    given = {name or Path(path).resolve().name: pictures.read_folder(Path(path)) for name, path in arguments.folder}
    return {**given, "free photographs": pictures.read_free()}


def _both_looks(arguments):
    """The whole look alone, and the default for photographs."""
    methods = pictures.looks(arguments.model)
    return {name: methods[name] for name in ("whole look (default)", "detail=3")}


def _of_photographs(arguments, sets):
    evaluations = Evaluations(load_predictor(arguments.model))
    provenance = {**_provenance(arguments, evaluations, {}), "pictures": {name: len(sets[name]) for name in sets}}
    for _, folder in arguments.folder:  # where somebody keeps pictures is nobody's business
        provenance["command"] = provenance["command"].replace(folder, "PATH")
    return provenance


def _rows(arguments, methods, sets, pairs, splits=None, judge=run_pairs):
    """The rows of a table of pairs: every method, by name; ``judge`` is called as :func:`run_pairs` is."""
    pairs, rows = list(pairs), {}
    splits = splits or _splits(arguments, sets)
    for name, method in methods.items():
        features = {key: _features(method, made.images) for key, made in sets.items()}
        results = judge(features, splits, method.detector, pairs, arguments.seeds)
        rows[name] = {"evaluations": method.evaluations, "group": method.group, "results": results}
        print(report.pair_line(name, summary(results)), flush=True)
    return rows


def _chosen(arguments, evaluations):
    """The methods that were asked for, by name."""
    return {name: _on_images(METHODS[name], evaluations) for name in arguments.methods}


def _on_images(method, evaluations):
    """A method whose features take images alone."""
    return method._replace(features=partial(method.features, evaluations))


def _features(method, images):
    parts = [images[k : k + _AT_ONCE] for k in range(0, len(images), _AT_ONCE)]
    return np.concatenate([method.features(part) for part in parts])


def _named(pairs):
    return [(papers.NAMES[inside], papers.NAMES[outside]) for inside, outside in pairs]


def _count(arguments, usual):
    return usual if arguments.count is None else arguments.count


def _title(title, arguments, usual):
    """A table of another number of images than the usual one has a file of its own."""
    count = _count(arguments, usual)
    return title if count == usual else f"{title}-{count or 'all'}"


def _title_of_sets(title, arguments):
    """A table of all sets, too, has a file of its own."""
    return _title(title if arguments.sets == "development" else f"{title}-all", arguments, POOL)


def _set_names(arguments):
    return DEVELOPMENT if arguments.sets == "development" else (*DEVELOPMENT, *TEST)


def _sets(arguments):
    sets = {name: load_set(name).first(_count(arguments, POOL)) for name in _set_names(arguments)}
    for name, folder in arguments.folder:
        sets[name] = load_folder(folder)
    for name in arguments.zoo:
        sets[name] = load_zoo(name)
    return sets


def _splits(arguments, sets):
    return {(name, seed): split(made.sources, seed) for name, made in sets.items() for seed in arguments.seeds}


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
