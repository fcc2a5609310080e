"""Which images count as likely out-of-distribution: chosen by a rule, changed at any time without the network."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F

from ..detection.rules import RULES, check_rule, choose_threshold, describe_rule
from .internals import Samples, every_image, root_dataset
from .record import RunRecord, finished_record
from .run import DiffPathRun
from .schema import describe, save_views
from .tags import give_tag


def set_diffpath_threshold(
    dataset: Samples, run_key: str, rule: str, level: float, *, tag: str | None = None
) -> DiffPathRun:
    """Chooses anew which images of a run are likely out-of-distribution.

    Scores and p-values stay; ``K_is_ood``, the views and the run's record follow.

    Args:
        dataset: the ``fo.Dataset`` that holds the run, or a view of it
        run_key: the run's key
        rule: ``"false_positive_rate"``: this share of images like the reference's is
            flagged; ``"false_discovery_rate"``: at most this share of the flagged is
            expected to be false (Benjamini and Hochberg); ``"percentile"`` of the scores;
            ``"count"``: the highest scores; ``"score"``: the threshold itself
        level: the rule's number
        tag: a sample tag that the flagged images are to have; None to keep to the tag that the
            run has, if any. The run takes it away again where it has given it, unless a person has
            added or removed the tag on any image meanwhile: then all of them stay

    Returns:
        the :class:`DiffPathRun`

    Raises:
        ValueError: if there is no such finished run, or rule or level are not valid
    """
    dataset = root_dataset(dataset)
    record = finished_record(dataset, run_key)
    record.patch(dataset, **apply_threshold(dataset, record, rule, level, tag=tag))
    return DiffPathRun.load(dataset, run_key)


def preview_threshold(dataset: Samples, run_key: str, rule: str, level: float) -> tuple[float, int]:
    """What :func:`set_diffpath_threshold` would flag; writes nothing.

    Returns:
        ``(threshold, count)``: the score from which images would be flagged, and how many
    """
    dataset = root_dataset(dataset)
    record = finished_record(dataset, run_key)
    threshold = find_threshold(dataset, record, rule, level)
    return threshold, every_image(dataset).match(F(record.fields["score"]) >= threshold).count()


def apply_threshold(
    dataset: fo.Dataset, record: RunRecord, rule: str, level: float, *, tag: str | None = None
) -> dict[str, Any]:
    """Writes flags, tag, descriptions and views; returns what the run's record is to hold of them."""
    threshold, fields = find_threshold(dataset, record, rule, level), record.fields
    scored = every_image(dataset).exists(fields["score"])
    ids, scores, flags = scored.values(["id", fields["score"], fields["is_ood"]])
    flagged = (np.array(scores, float) >= threshold).tolist()
    changed = {i: now for i, now, before in zip(ids, flagged, flags) if now is not before}
    if changed:
        dataset.set_values(fields["is_ood"], changed, key_field="id")
    tagged = give_tag(dataset, record, tag or record.tag)
    words = describe_rule(rule, level)
    describe(dataset, fields, "score", f"likely OOD from {threshold:.4g}")
    describe(dataset, fields, "is_ood", f"{threshold:.4g}: {words}")
    save_views(dataset, fields, record.views, threshold, words)
    return {"rule": rule, "level": level, "threshold": threshold, "num_likely_ood": sum(flagged), **tagged}


def find_threshold(dataset: fo.Dataset, record: RunRecord, rule: str, level: float) -> float:
    """The score from which a rule flags a run's images."""
    check_rule(rule, level)
    score = record.fields["score"]
    scores = every_image(dataset).exists(score).values(score) if RULES[rule].needs_all_scores else []
    return choose_threshold(rule, level, scores, record.load_reference().detector.calibration_)
