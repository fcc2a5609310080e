"""Runs the diffpath operator on real images: which photographs do not belong? And which images among clothing?

For each of the two it writes a table, ``results.json`` and ``contact_sheet.png``; ``--app`` then
opens the FiftyOne App on the photographs.
"""

import argparse
import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

DEMO = Path(__file__).resolve().parent
RUN_KEY = "diffpath"


class Part(NamedTuple):
    """A dataset of the demo; ``copies`` of its clean queries are corrupted in each way."""

    dataset: str
    folder: str
    files: str
    corruptions: str  # the table of ``corruptions.py``
    copies: int
    said: str
    groups: str | None = None


PARTS = {
    "photographs": Part(
        "diffpath-photographs", "photographs", "*.jpg", "OF_PHOTOGRAPHS", 45, "parts of photographs", "photograph"
    ),
    "clothing": Part("diffpath-demo", "data", "*.png", "CORRUPTIONS", 60, "Fashion-MNIST images"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEMO / "output", help="folder for everything that is written")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--app", action="store_true", help="open the FiftyOne App at the end")
    parser.add_argument("--port", type=int, default=5151, help="port of the App")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    isolate_fiftyone(output)

    import fiftyone as fo

    shown = [score(fo, PARTS[name], output / name) for name in arguments.parts]
    if arguments.app:
        fo.launch_app(shown[0], port=arguments.port).wait(-1)


def score(fo, part, output):
    """Scores a part, writes what is to be seen of it, and returns the ranked view."""
    import fiftyone.operators as foo
    from contact_sheet import write_contact_sheet

    dataset = build_dataset(fo, part, output)
    operator = foo.get_operator("@diffpath/diffpath/compute_diffpath")
    queries = dataset.match_tags("query")
    run = operator(queries, reference="reference", run_key=RUN_KEY, groups=part.groups)

    results = evaluate(dataset, run)
    print(f"\n# {output.name}")
    report(results, run)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    sheet = output / "contact_sheet.png"
    title = f"{run.num_scored} images scored against {run.config['num_reference']} {part.said}"
    write_contact_sheet(sheet, run.view(dataset), RUN_KEY, title)
    print(f"\nContact sheet: {sheet}\nMaps:          {Path(run.heatmap_dir).parent}")
    return run.view(dataset)


def isolate_fiftyone(output):
    """Points FiftyOne at a database and plugins folder of the demo's own, unless the user chose some."""
    plugins = output / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    link = plugins / "diffpath"
    link.unlink(missing_ok=True)  # after a move it would load the plugin from the old place
    link.symlink_to(DEMO.parent, target_is_directory=True)
    os.environ["FIFTYONE_PLUGINS_DIR"] = str(plugins)
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "1")
    os.environ.setdefault("FIFTYONE_DEFAULT_DATASET_DIR", str(output / "fiftyone"))
    if "FIFTYONE_DATABASE_URI" not in os.environ:
        os.environ.setdefault("FIFTYONE_DATABASE_DIR", str(output / "database"))


def build_dataset(fo, part, output):
    """A part's dataset: reference, clean, intruding, corrupted and unreadable images."""
    import corruptions
    import numpy as np
    from PIL import Image

    from diffpath import delete_diffpath

    if fo.dataset_exists(part.dataset):
        old = fo.load_dataset(part.dataset)
        if old.has_run(RUN_KEY):
            delete_diffpath(old, RUN_KEY)  # deleting the dataset alone would leave its heatmaps
        fo.delete_dataset(part.dataset)
    made = output / "images"
    shutil.rmtree(made, ignore_errors=True)
    data = DEMO / part.folder
    with (data / "SOURCES.csv").open(newline="") as file:
        sources = {row["file"]: row["source"].split(", ")[0] for row in csv.DictReader(file)}
    samples, clean = [], {}
    for path in sorted(data.glob(f"*/{part.files}")):
        kind, source = path.parent.name, sources[f"{path.parent.name}/{path.name}"]
        tags = ["reference" if kind == "reference" else "query"]
        samples.append(
            fo.Sample(filepath=str(path), kind=kind, group=_group(kind), photograph=Path(source).stem, tags=tags)
        )
        if kind == "clean" and len(clean) < part.copies:
            clean[path] = Path(source).stem
    chance = np.random.default_rng(0)
    for kind, corrupt in getattr(corruptions, part.corruptions).items():
        (made / kind).mkdir(parents=True)
        for path, source in clean.items():
            copy = made / kind / f"{path.stem}.png"
            with Image.open(path) as image:
                corrupt(image, chance).save(copy)
            samples.append(
                fo.Sample(filepath=str(copy), kind=kind, group="corruption", photograph=source, tags=["query"])
            )
    for path in corruptions.write_unreadable(made / "unreadable", next(iter(clean))):
        samples.append(fo.Sample(filepath=str(path), kind="unreadable", group="unreadable", tags=["query"]))
    dataset = fo.Dataset(part.dataset, persistent=True)
    dataset.add_samples(samples, progress=False)
    return dataset


def _group(kind):
    return kind if kind in ("reference", "clean") else "intruder"


def evaluate(dataset, run):
    """Per kind: AUROC and FPR at 95 % TPR against the clean queries, and the share flagged."""
    from diffpath.detection import evaluation

    score, queries = run.fields["score"], run.view(dataset)
    kinds = {group: sorted(queries.match({"group": group}).distinct("kind")) for group in ("intruder", "corruption")}
    clean = queries.match({"kind": "clean"}).values(score)
    results = {"positive class": "the intruder or the corrupted copy", "negative class": "clean queries", "kinds": {}}
    for group, names in kinds.items():
        for name in names:
            positive = queries.match({"kind": name}).values(score)
            labels = [False] * len(clean) + [True] * len(positive)
            measured = evaluation.evaluate(clean + positive, labels, threshold=run.threshold)
            results["kinds"][name] = {
                "group": group,
                "images": measured.num_positive,
                "auroc": measured.auroc,
                "auroc interval": measured.intervals["auroc"],
                "fpr95": measured.fpr95,
                "flagged": measured.true_positive_rate,
            }
            results["flagged, clean"] = measured.false_positive_rate
    for group, names in kinds.items():
        aurocs = [results["kinds"][name]["auroc"] for name in names]
        results[f"average auroc, {group}"] = sum(aurocs) / len(aurocs)
    results["milliseconds per image"] = 1000 / run.config["images_per_second"]
    results["unreadable"] = dataset.exists(run.fields["error"]).values(run.fields["error"])
    return results


def report(results, run):
    print(f"\nPositive class: {results['positive class']}; negative class: {results['negative class']}")
    print(f"{'kind':<12}{'images':>8}{'AUROC':>9}{'95 % interval':>17}{'FPR@95TPR':>12}{'flagged':>10}")
    for group in ("intruder", "corruption"):
        for name, row in results["kinds"].items():
            if row["group"] == group:
                interval = "{:.3f} to {:.3f}".format(*row["auroc interval"])
                print(
                    f"{name:<12}{row['images']:>8}{row['auroc']:>9.3f}{interval:>17}"
                    f"{row['fpr95']:>12.3f}{row['flagged']:>10.0%}"
                )
        print(f"{'average':<20}{results[f'average auroc, {group}']:>9.3f}  over kinds of {group}\n")
    print(
        f"At a false-positive rate of {run.level:.0%}, {run.num_likely_ood} of {run.num_scored} images are flagged, "
        f"and {results['flagged, clean']:.1%} of the clean queries; the smallest possible p-value is "
        f"{run.smallest_p_value:.4f}"
    )
    print(f"Time: {results['milliseconds per image']:.1f} ms per image on {run.config['device']}")
    print(f"Unreadable: {run.num_unreadable}")
    for error in results["unreadable"]:
        print(f"  {error}")


if __name__ == "__main__":
    sys.path[:0] = [str(DEMO), str(DEMO.parent)]
    main()
