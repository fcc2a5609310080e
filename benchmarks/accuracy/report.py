"""Tables in Markdown and JSON, and figures, of what the runs measured."""

import json

import numpy as np
import pandas as pd

from .protocol import summary

METRICS = {"auroc": "AUROC", "aupr_ood": "AUPR (anomalies)", "aupr_in": "AUPR (normal)", "fpr95": "FPR@95"}


def pair_line(name, figures):
    """One line for the terminal."""
    worst = " → ".join(figures["worst_pair"])
    return f"{name:<40}{figures['average']:.3f} ± {figures['spread']:.3f}   minimum {figures['minimum']:.3f} ({worst})"


def write_pairs(folder, title, rows, provenance):
    """``title.md``, ``title.json`` and ``title.png`` of the rows of :func:`benchmarks.accuracy.runs.pairs`.

    Args:
        folder: where to, created if it is missing
        title: of the files
        rows: name -> {"evaluations", "group", "results": pair -> metrics by seed}
        provenance: command, model, seeds and sets
    """
    sums = _sums(rows)
    sets = list(next(iter(sums.values()))["auroc"]["by_set"])
    lines = [f"# {title.replace('-', ' ').capitalize()}", "", *_provenance_lines(provenance), ""]
    lines += _markdown(
        {
            "method": name,
            "evaluations": row["evaluations"],
            "average AUROC": f"**{auroc['average']:.3f}** ± {auroc['spread']:.3f}",
            "minimum": f"{auroc['minimum']:.3f} ({' → '.join(auroc['worst_pair'])})",
            "AUPR anomalies / normal": f"{sums[name]['aupr_ood']['average']:.3f} / "
            f"{sums[name]['aupr_in']['average']:.3f}",
            "FPR@95": sums[name]["fpr95"]["average"],
            **auroc["by_set"],
        }
        for name, row in rows.items()
        for auroc in (sums[name]["auroc"],)
    )
    first = next(iter(rows))
    lines += ["", f"Every pair of *{first}*, mean AUROC over seeds (in-distribution set by row):", ""]
    every = _means(rows[first]).unstack().reindex(index=sets, columns=sets)
    lines += _markdown(every.rename_axis(index="").reset_index())
    _write_rows(folder, title, lines, rows, sums, {"provenance": provenance})


def write_paper(folder, title, rows, not_run, provenance):
    """``title.md``, ``.json`` and ``.png`` of the papers' pairs: a row for each method, a column for each pair.

    Args:
        folder, title, rows, provenance: as those of :func:`write_pairs`
        not_run: reason -> the pairs that are missing for it
    """
    sums = _sums(rows)
    pairs = list(next(iter(rows.values()))["results"])
    missing = sum(map(len, not_run.values()))
    lines = ["# The papers' pairs, AUROC", "", *_provenance_lines(provenance), ""]
    lines.append(f"Ran: {len(pairs)} of {len(pairs) + missing} pairs, in-distribution → other.")
    lines += ["Mean over seeds, each with its choice of images.", ""]
    for reason, those in not_run.items():
        lines.append(f"- Not run, {reason}: {', '.join(map(' → '.join, those))}")
    lines += [""] if not_run else []
    lines += _markdown(
        {
            "method": name,
            "evaluations": row["evaluations"],
            "average": f"**{sums[name]['auroc']['average']:.3f}** ± {sums[name]['auroc']['spread']:.3f}",
            **{" → ".join(pair): mean for pair, mean in _means(row).items()},
        }
        for name, row in rows.items()
    )
    named = {reason: list(map(" → ".join, those)) for reason, those in not_run.items()}
    _write_rows(folder, title, lines, rows, sums, {"provenance": provenance, "not_run": named})


def write_corruptions(folder, title, rows, counts, provenance):
    """``title.md`` and ``.json``: rows (set, kind, severity, method) -> metrics of corrupted images.

    ``counts`` says how many of them, by severity.
    """
    lines = [f"# {title.replace('-', ' ').capitalize()}", "", *_provenance_lines(provenance), ""]
    stored = [{"set": a, "kind": b, "severity": c, "method": d, **row} for (a, b, c, d), row in rows.items()]
    measured = pd.DataFrame(stored)
    for severity, those in measured.groupby("severity"):
        lines += [f"## Severity {severity}, AUROC, {counts[severity]} images of each kind", ""]
        lines += [*_markdown(_by_kind(those, ["set", "method"], "auroc")), ""]
    _write(folder, title, lines[:-1], {"provenance": provenance, "rows": stored})


def print_photographs(name, rows):
    """A line for each method: averages over the fifteen kinds of the middle severity."""
    for row in _averages(rows).to_dict("records"):
        print(
            "{:<20}severity {}  {:<30}{:>4}  AUROC {:.3f}  found {:.0%}  clean flagged {:.1%}".format(
                name, *(row[key] for key in ("severity", "method", "evaluations", "auroc", "found", "clean flagged"))
            ),
            flush=True,
        )


def write_photographs(folder, rows, dirty, provenance):
    """``photographs.md`` and ``.json``: rows by set, dicts of ``measure`` and ``measure_without_reference``."""
    lines = ["# Corrupted photographs", "", *_provenance_lines({**provenance, "sets": {}}), ""]
    for name, measured in rows.items():
        lines += [f"## {name}, {provenance['pictures'][name]} pictures", ""]
        lines += ["Averages over the fifteen kinds", "", *_markdown(_averages(measured)), ""]
        lines += ["Without a reference, by the corrupted share", "", *_markdown(pd.DataFrame(dirty[name])), ""]
        frame = pd.DataFrame(measured)
        for severity, those in frame.groupby("severity"):
            title = f"severity {severity}" if severity else "accidents"
            for value, label in (("auroc", "AUROC"), ("found", "share found at a level of 5 %")):
                lines += [
                    f"### {title}, {label}",
                    "",
                    *_markdown(_by_kind(those, ["method", "evaluations"], value)),
                    "",
                ]
    _write(folder, "photographs", lines[:-1], {"provenance": provenance, "rows": rows, "without a reference": dirty})


def _averages(rows):
    """Means over kinds by method and severity, without the accidents."""
    frame = pd.DataFrame([row for row in rows if row["severity"]])
    keys = ["severity", "method", "evaluations"]
    return frame.groupby(keys, sort=False)[["auroc", "found", "clean flagged"]].mean().reset_index()


def write_calibration(folder, rows, level, provenance):
    """``calibration.md`` and ``.json``: rows (method, set) -> shares flagged without groups and with them."""
    methods, sets = (list(dict.fromkeys(key[k] for key in rows)) for k in range(2))
    lines = [f"# Images of the set's own kind that a level of {level:.0%} flags", "", *_provenance_lines(provenance)]
    lines += [
        "Test images are of source files that the fitted ones are not of; mean over seeds. *Groups* are the source "
        "files of the fitted images.",
        "",
    ]
    columns = ["", *(label for method in methods for label in (method, "with groups"))]
    cells = [[name, *(f"{share:.1%}" for method in methods for share in rows[method, name])] for name in sets]
    lines += _markdown(pd.DataFrame(cells, columns=columns))
    stored = [{"method": a, "set": b, "flagged": row[0], "flagged_with_groups": row[1]} for (a, b), row in rows.items()]
    _write(folder, "calibration", lines, {"provenance": provenance, "level": level, "rows": stored})


def write_photograph_levels(folder, rows, provenance):
    """``photograph-levels.md`` and ``.json``: rows by set, as of :func:`photographs.measure_levels`."""
    lines = ["# Clean photographs that a level of 5% flags, by how many are the reference", ""]
    lines += [*_provenance_lines(provenance), "Mean and deviation over twenty choices of the reference.", ""]
    frame = pd.DataFrame([{"set": name, **row} for name, made in rows.items() for row in made])
    frame["cell"] = [f"{row.flagged:.1%} ± {row.deviation:.1%}" for row in frame.itertuples()]
    table = frame.pivot(index=["set", "method"], columns="reference", values="cell").fillna("–").reset_index()
    lines += _markdown(table.rename(columns=str))
    _write(folder, "photograph-levels", lines, {"provenance": provenance, "rows": rows})


def write_supervised_corruptions(folder, rows, provenance):
    """``supervised-corruptions.md`` and ``.json``: rows (set, what a classifier was shown) -> AUROC by kind."""
    lines = ["# Corruptions of severity 3 with the answer known, AUROC", "", *_provenance_lines(provenance)]
    lines += [
        "A classifier of the descriptors of the reference's images and of corrupted copies of some of them, against "
        "other images, clean and corrupted.",
        "",
    ]
    lines += _markdown(
        {"set": name, "shown corrupted by": label, "average": f"**{np.mean(list(row.values())):.3f}**", **row}
        for (name, label), row in rows.items()
    )
    stored = [{"set": a, "shown": b, **row} for (a, b), row in rows.items()]
    _write(folder, "supervised-corruptions", lines, {"provenance": provenance, "rows": stored})


def write_solar(folder, rows, provenance):
    """``solar.md``, ``.json``: rows (view, cells, reading) -> AUROC by seed on the development and the test part.

    ``cells`` are the numbers of functional and of defective cells.
    """
    lines = ["# Functional against defective solar cells, AUROC", "", *_provenance_lines(provenance)]
    lines += [
        "Half of the functional cells are fitted. What is chosen is chosen on the development part (a fifth of the "
        "functional, half of the defective cells); test is three tenths of the functional and the other defective "
        "cells. Mean and deviation over seeds, whose cells overlap.",
        "",
    ]
    lines += _markdown(
        {
            "pixels": view,
            "functional / defective cells": f"{counts[0]} / {counts[1]}",
            "reading": reading,
            "development": mean_and_deviation(row["development"]),
            "test": f"**{mean_and_deviation(row['test'])}**",
        }
        for (view, counts, reading), row in rows.items()
    )
    stored = [
        {"view": view, "cells": counts, "reading": reading, **row} for (view, counts, reading), row in rows.items()
    ]
    _write(folder, "solar", lines, {"provenance": provenance, "rows": stored})


def write_localisation(folder, title, rows, ranked, provenance):
    """``title.md`` and ``.json``: rows (ground, patch, map) -> pixel AUROC and PRO; ranked (ground, map) -> AUROC."""
    lines = [
        "# Localisation, pixel AUROC within images / over all images together / PRO to a false-positive rate of 0.3",
        "",
        *_provenance_lines(provenance),
        "",
    ]
    cells: dict[str, dict[str, str]] = {}
    for (ground, patch, name), row in rows.items():
        cells.setdefault(name, {"map": name})[f"{patch} in {ground}"] = " / ".join(f"{x:.3f}" for x in row.values())
    lines += _markdown(cells.values())
    lines += ["", "# Images of other sets ranked by the means of their maps, AUROC", ""]
    lines += ["*with the score*: Spearman's correlation of mean and score, over all images.", ""]
    by_mean = []
    for (ground, name), row in ranked.items():
        average = np.mean([value for other, value in row.items() if other != "with the score"])
        by_mean.append({"reference": ground, "map": name, "average": f"**{average:.3f}**", **row})
    lines += _markdown(by_mean)
    stored = [{"ground": a, "patch": b, "map": c, **row} for (a, b, c), row in rows.items()]
    _write(
        folder,
        title,
        lines,
        {
            "provenance": provenance,
            "rows": stored,
            "ranked": [{"ground": a, "map": b, **row} for (a, b), row in ranked.items()],
        },
    )


def write_tiles(folder, rows, provenance):
    """``tiles.md`` and ``.json``: rows as of :func:`tiles.measure`."""
    said = (
        "Pixels *within* defective pictures, and *over all* pictures together, good ones too; then good from defective "
        "pictures by the mean of a map or of its highest part, and by the score."
    )
    _write_table(folder, "tiles", "Defects of surfaces, AUROC", said, rows, rows, provenance)


def write_local_score(folder, rows, provenance):
    """``local-score.md`` and ``.json``: rows as of :func:`local_score.measure`."""
    said = (
        "Means over the ordered pairs of eight sets and seeds, over drawings and noise pasted into each set, and "
        "functional from defective solar cells (300 and 400, half of the functional ones fitted)."
    )
    table = [{"score": name, **row} for name, row in rows.items()]
    heading = "The most unusual place of an image beside its score, AUROC"
    _write_table(folder, "local-score", heading, said, table, rows, provenance)


def _write_table(folder, title, heading, said, table, stored, provenance):
    """One table under a heading, and what it is made of as JSON."""
    lines = [f"# {heading}", "", *_provenance_lines(provenance), said, "", *_markdown(pd.DataFrame(table))]
    _write(folder, title, lines, {"provenance": provenance, "rows": stored})


def mean_and_deviation(values):
    """A mean with its deviation over seeds; of one seed there is none."""
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean


def _by_kind(measured, index, value):
    """A row for each index that has all kinds, with the average over them in front."""
    kinds, rows = list(measured["kind"].unique()), measured[index].drop_duplicates()
    wide = measured.pivot(index=index, columns="kind", values=value)[kinds].dropna()
    wide = wide.reindex(pd.MultiIndex.from_frame(rows)).dropna()  # pivot sorts
    wide.insert(0, "average", [f"**{mean:.3f}**" for mean in wide[kinds].mean(axis=1)])
    return wide.reset_index()


def _markdown(rows):
    """Lines of a table in Markdown: floats to three places, nothing where a figure is missing.

    Args:
        rows: a data frame, or a dict for each row
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    header = "| " + " | ".join(map(str, frame.columns)) + " |"
    lines = [header.replace("|  |", "| |"), "|---" * len(frame.columns) + "|"]
    for row in frame.itertuples(index=False, name=None):
        lines.append("| " + " | ".join(map(_cell, row)) + " |")
    return lines


def _cell(value):
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)


def _write(folder, title, lines, stored):
    """A table's lines, and what it is of as JSON; the folder is created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{title}.md").write_text("\n".join(lines) + "\n")
    (folder / f"{title}.json").write_text(json.dumps(_rounded(stored), separators=(",", ":")) + "\n")


def _sums(rows):
    return {name: {metric: summary(row["results"], metric) for metric in METRICS} for name, row in rows.items()}


def _means(row):
    """The mean AUROC over seeds of every pair, a series."""
    return pd.Series({pair: np.mean([run["auroc"] for run in runs]) for pair, runs in row["results"].items()})


def _write_rows(folder, title, lines, rows, sums, stored):
    """The three files of a table whose rows are methods."""
    methods = {
        name: {
            **row,
            "results": {" → ".join(pair): runs for pair, runs in row["results"].items()},
            "summary": sums[name],
        }
        for name, row in rows.items()
    }
    _write(folder, title, lines, {**stored, "methods": methods})
    _bars(folder / f"{title}.png", {name: figures["auroc"] for name, figures in sums.items()})


def _provenance_lines(provenance):
    sets = ", ".join(f"{name} ({made.get('used', made['images'])})" for name, made in provenance["sets"].items())
    return [
        f"`{provenance['command']}`, base model {provenance['model']} (`{provenance['fingerprint']}`), "
        f"seeds {', '.join(map(str, provenance['seeds']))}." + (f" Sets: {sets}." if sets else "")
    ]


def _rounded(values):
    """Figures to four places, which is more than they are worth."""
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_rounded(value) for value in values]
    return round(values, 4) if isinstance(values, float) else values


def _bars(path, figures):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(figures)[::-1]
    height = 0.32 * len(names) + 1.1
    figure, axis = pyplot.subplots(figsize=(8, height), layout="constrained")
    places = np.arange(len(names))
    axis.barh(places, [figures[n]["average"] for n in names], color="#4c78a8", label="average over pairs")
    axis.plot([figures[n]["minimum"] for n in names], places, "o", color="#d62728", label="lowest pair")
    axis.set(yticks=places, yticklabels=names, xlim=(0, 1), xlabel="AUROC")
    axis.axvline(0.5, color="#999999", linewidth=0.8)
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.9 / height), ncols=2, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
