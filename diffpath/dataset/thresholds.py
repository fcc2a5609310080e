"""Which images count as likely out-of-distribution: chosen by a rule, changed at any time without the network."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F

from ..detection.rules import RULES, check_rule, choose_threshold, describe_rule
from .internals import Samples, count_images, every_image, read_numbers, root_dataset, update_images
from .lock import writing
from .patience import waits_for_database
from .pending import finishes, settle
from .record import COMPLETE, RunRecord, finished_record
from .run import DiffPathRun
from .schema import describe, save_views
from .tags import give_tag, is_tag_ours

_OPERATION = "flag"


@waits_for_database
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
    settle(dataset)
    with writing(dataset, f"flagging by run {run_key!r}"):
        record = finished_record(dataset, run_key)
        flag(dataset, record, rule, level, tag)
    return DiffPathRun.load(dataset, run_key)


def flag(dataset: fo.Dataset, record: RunRecord, rule: str, level: float, tag: str | None = None) -> RunRecord:
    """Flags a finished run's images anew, so that it can be finished where it is interrupted; returns the record."""
    threshold = find_threshold(dataset, record, rule, level)  # what is wrong is said before anything is noted
    asked = {"operation": _OPERATION, "rule": rule, "level": level, "tag": tag, "ours": is_tag_ours(dataset, record)}
    record = record.patch(dataset, pending=asked)
    flagged = apply_threshold(dataset, record, rule, level, tag=tag, threshold=threshold)
    return record.patch(dataset, pending=None, **flagged)


@finishes(_OPERATION)
def _finish(dataset: fo.Dataset, record: RunRecord, asked: dict[str, Any]) -> None:
    rule, level, tag = (asked[name] for name in ("rule", "level", "tag"))
    record.patch(dataset, pending=None, **apply_threshold(dataset, record, rule, level, tag=tag))


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
    dataset: fo.Dataset,
    record: RunRecord,
    rule: str,
    level: float,
    *,
    tag: str | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Writes flags, tag, descriptions and views; returns what the run's record is to hold of them."""
    threshold = find_threshold(dataset, record, rule, level) if threshold is None else threshold
    fields = record.fields
    score, is_ood = fields["score"], fields["is_ood"]
    for found, side in ((True, "$gte"), (False, "$lt")):
        update_images(dataset, {score: {side: threshold}, is_ood: {"$ne": found}}, {"$set": {is_ood: found}})
    tagged = give_tag(dataset, record, tag or record.tag, _ours(record))
    words = describe_rule(rule, level)
    describe(dataset, fields, "score", f"likely OOD from {threshold:.4g}")
    describe(dataset, fields, "is_ood", f"{threshold:.4g}: {words}")
    save_views(dataset, fields, record.views, threshold, words)
    return {
        "rule": rule,
        "level": level,
        "threshold": threshold,
        "num_likely_ood": count_images(dataset, {is_ood: True}),
        **tagged,
    }


def _ours(record: RunRecord) -> bool | None:
    """Whether the run's tag was the run's own when this was begun, where it was begun before."""
    if record.status != COMPLETE:
        return True  # nobody has seen the tag of a run that is being made
    return None if record.pending is None else record.pending.get("ours")


def find_threshold(dataset: fo.Dataset, record: RunRecord, rule: str, level: float) -> float:
    """The score from which a rule flags a run's images."""
    check_rule(rule, level)
    score = record.fields["score"]
    scores = read_numbers(dataset, score) if RULES[rule].needs_all_scores else np.empty(0)
    return choose_threshold(rule, level, scores, record.load_reference().detector.calibration_)
