"""Runs the diffpath operator on real images: which of these do not belong among clothing?

Writes a table, ``results.json`` and ``contact_sheet.png``; ``--app`` then opens the FiftyOne App.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent
CORRUPTED_PER_KIND = 60
RUN_KEY = "diffpath"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEMO / "output", help="folder for everything that is written")
    parser.add_argument("--app", action="store_true", help="open the FiftyOne App at the end")
    parser.add_argument("--port", type=int, default=5151, help="port of the App")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    isolate_fiftyone(output)

    import fiftyone as fo
    import fiftyone.operators as foo

    dataset = build_dataset(fo, output)
    operator = foo.get_operator("@diffpath/diffpath/compute_diffpath")
    run = operator(dataset.match_tags("query"), reference="reference", run_key=RUN_KEY)

    results = evaluate(dataset, run)
    report(results, run)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    from contact_sheet import write_contact_sheet

    sheet = output / "contact_sheet.png"
    title = f"{run.num_scored} images scored against {run.config['num_reference']} Fashion-MNIST images"
    write_contact_sheet(sheet, run.view(dataset), RUN_KEY, title)
    print(f"\nContact sheet: {sheet}\nHeatmaps:      {run.heatmap_dir}")
    if arguments.app:
        fo.launch_app(run.view(dataset), port=arguments.port).wait(-1)


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


def build_dataset(fo, output):
    """The dataset ``diffpath-demo``: reference, clean, intruding, corrupted and unreadable images."""
    import numpy as np
    from corruptions import CORRUPTIONS, write_unreadable
    from PIL import Image

    from diffpath import delete_diffpath

    if fo.dataset_exists("diffpath-demo"):
        old = fo.load_dataset("diffpath-demo")
        if old.has_run(RUN_KEY):
            delete_diffpath(old, RUN_KEY)  # deleting the dataset alone would leave its heatmaps
        fo.delete_dataset("diffpath-demo")
    made = output / "images"
    shutil.rmtree(made, ignore_errors=True)
    folders = {folder.name: sorted(folder.glob("*.png")) for folder in (DEMO / "data").iterdir() if folder.is_dir()}
    samples = [
        fo.Sample(
            filepath=str(path), kind=kind, group=_group(kind), tags=["reference" if kind == "reference" else "query"]
        )
        for kind, paths in sorted(folders.items())
        for path in paths
    ]
    chance = np.random.default_rng(0)
    for kind, corrupt in CORRUPTIONS.items():
        (made / kind).mkdir(parents=True)
        for path in folders["clean"][:CORRUPTED_PER_KIND]:
            with Image.open(path) as image:
                corrupt(image, chance).save(made / kind / path.name)
            samples.append(
                fo.Sample(filepath=str(made / kind / path.name), kind=kind, group="corruption", tags=["query"])
            )
    for path in write_unreadable(made / "unreadable", folders["clean"][0]):
        samples.append(fo.Sample(filepath=str(path), kind="unreadable", group="unreadable", tags=["query"]))
    dataset = fo.Dataset("diffpath-demo", persistent=True)
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
