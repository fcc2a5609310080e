"""A finished run, as callers see it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from .internals import Samples, root_dataset
from .record import RunRecord, counted, finished_record
from .schema import VIEW_KINDS

if TYPE_CHECKING:
    from ..detection.reference import Reference


@dataclass(frozen=True)
class DiffPathRun:
    """A finished run.

    Attributes:
        run_key: the run's key
        dataset_name: the dataset that holds its fields
        num_scored: images with a score
        num_unreadable: images that could not be scored; the ``K_error`` field says why
        num_likely_ood: images with a score of at least ``threshold``
        threshold: scores from here on count as likely out-of-distribution
        rule: how the threshold was chosen, as in ``set_diffpath_threshold``
        level: the rule's number
        tag: the sample tag of the flagged images, or None
        smallest_p_value: no image's p-value can be less; 0 without a reference
        seconds: wall time of the run, of its last part if it was interrupted
        heatmap_dir: the folder of the heatmaps, or None; error maps are in one beside it
        fields: names of the run's fields by kind
        views: names of the run's saved views by kind: ranked, ood, typical, unreadable
        record: everything that is recorded of the run
    """

    run_key: str
    dataset_name: str
    num_scored: int
    num_unreadable: int
    num_likely_ood: int
    threshold: float
    rule: str
    level: float
    tag: str | None
    smallest_p_value: float
    seconds: float
    heatmap_dir: str | None
    fields: dict[str, str]
    views: dict[str, str]
    record: RunRecord

    @classmethod
    def load(cls, dataset: fo.Dataset, run_key: str) -> DiffPathRun:
        """Loads the record of a finished run."""
        record = counted(dataset, finished_record(dataset, run_key))
        ours = {"dataset_name", "heatmap_dir", "record"}
        recorded = {f.name: getattr(record, f.name) for f in fields(cls) if f.name not in ours}
        return cls(
            dataset_name=dataset.name,
            heatmap_dir=str(record.map_folder("heatmap")) if record.heatmaps else None,
            record=record,
            **recorded,
        )

    @property
    def config(self) -> dict[str, Any]:
        """The record as it is stored, JSON-ready."""
        return self.record.to_stored()

    @property
    def reference_path(self) -> str:
        """The file of the run's fitted reference, which other runs can use as well."""
        return str(self.record.reference_path)

    def reference(self) -> Reference:
        """The run's fitted reference, a :class:`diffpath.Reference`."""
        return self.record.load_reference()

    def view(self, dataset: Samples, kind: str = "ranked") -> fo.DatasetView:
        """One of the run's live views over its dataset: ranked, ood, typical or unreadable."""
        return VIEW_KINDS[kind].view(root_dataset(dataset), self.fields, self.threshold)
