"""Verdicts as rows of a table: CSV, Parquet."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..options import FEATURE_NAMES
from .scoring import Verdicts


def rows(verdicts: Verdicts) -> Iterator[dict[str, Any]]:
    """One for each file, in the order in which they were given; None for what there is not."""
    for place, path in enumerate(verdicts.paths):
        yield {
            "filepath": path,
            "score": _or_none(verdicts.scores[place]),
            "p_value": _or_none(verdicts.p_values[place]),
            "flagged": bool(verdicts.flagged[place]),
            "explanation": verdicts.explanations[place],
            "reason": verdicts.errors[place],  # beside the feature "error"
            **{name: _or_none(value) for name, value in zip(FEATURE_NAMES, verdicts.features[place])},
            **{kind: made[place] for kind, made in verdicts.maps.items()},
        }


def without_maps(verdicts: Verdicts) -> Verdicts:
    """The same without paths of maps, where those are not kept."""
    return replace(verdicts, maps={})


def write_csv(verdicts: Verdicts, path: Path) -> None:
    """Writes one row for each file, with the names of the columns in the first."""
    partial = path.with_name(f"{path.name}.partial.csv")
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = None
        for row in rows(verdicts):
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)
    partial.replace(path)


def write_parquet(verdicts: Verdicts, path: Path) -> None:
    """Writes the same as Parquet.

    Raises:
        ValueError: if pyarrow is not installed
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ValueError('Parquet files are written by pyarrow; run: pip install "diffpath[parquet]"') from error
    partial = path.with_name(f"{path.name}.partial.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows(verdicts))), partial)
    partial.replace(path)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
