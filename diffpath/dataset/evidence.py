"""Makes a run's anomaly maps and boxes from the evidence of its images."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import fiftyone as fo

from ..folders.evidence import Evidence
from ..folders.maps import MapWriter
from .record import RunRecord
from .regions import detections

if TYPE_CHECKING:
    from ..detection.local import LocalReference

_KIND = "anomaly_map"


def write_anomaly_maps(
    dataset: fo.Dataset, record: RunRecord, evidence: Evidence, local: LocalReference | None, ids: Collection[str]
) -> None:
    """Makes the anomaly maps of images from their evidence, and where the run has them, boxes of their regions.

    Args:
        dataset: the ``fo.Dataset``
        record: the run's record
        evidence: of the images
        local: what the reference's places look like; None where that is not known: then no map is made
        ids: of the images that have features
    """
    field = record.fields.get(_KIND)
    if field is None or local is None:
        return
    writer = MapWriter(record.folder, [_KIND], len(ids) + (record.num_scored or 0))
    for some, values in evidence.chunks(ids):
        surprise = local.maps(values)
        maps = {i: fo.Heatmap(map_path=writer.add(each, _KIND, i)) for i, each in zip(some, surprise)}
        if record.regions:
            regions = {i: detections(each, record.regions) for i, each in zip(some, surprise)}
            dataset.set_values(record.fields["regions"], regions, key_field="id")
        writer.wait()
        dataset.set_values(field, maps, key_field="id")
