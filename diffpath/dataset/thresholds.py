"""Which images count as likely out-of-distribution: chosen by a rule, changed at any time without the network."""

import numpy as np
from fiftyone import ViewField as F

from ..detection.calibration import RULES_OF_ALL_SCORES, choose_threshold, describe_rule
from .record import DiffPathRun, read_finished, saved_reference, write_config
from .schema import describe, flagged_view, save_views


def set_diffpath_threshold(dataset, run_key, rule, level, *, tag=None):
    """Chooses anew which images of a run are likely out-of-distribution.

    Scores and p-values stay; ``K_is_ood``, the views and the run's record follow.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        rule: ``"false_positive_rate"``: this share of images like the reference's is
            flagged; ``"false_discovery_rate"``: at most this share of the flagged is
            expected to be false (Benjamini and Hochberg); ``"percentile"`` of the scores;
            ``"count"``: the highest scores; ``"score"``: the threshold itself
        level: the rule's number
        tag: a sample tag that the flagged images are to have, and of this run's images
            only they; None to keep to the tag that the run has, if any

    Returns:
        the :class:`DiffPathRun`

    Raises:
        ValueError: if there is no such finished run, or rule or level are not valid
    """
    config = read_finished(dataset, run_key)
    config.update(apply_threshold(dataset, config, rule, level, tag=tag))
    write_config(dataset, run_key, config)
    return DiffPathRun.load(dataset, run_key)


def preview_threshold(dataset, run_key, rule, level):
    """What :func:`set_diffpath_threshold` would flag; writes nothing.

    Returns:
        ``(threshold, count)``: the score from which images would be flagged, and how many
    """
    config = read_finished(dataset, run_key)
    threshold = _choose(dataset, config, rule, level)
    return threshold, dataset.match(F(config["fields"]["score"]) >= threshold).count()


def apply_threshold(dataset, config, rule, level, *, tag=None):
    """Writes flags, tag, descriptions and views; returns what the run is to record of them."""
    threshold, fields = _choose(dataset, config, rule, level), config["fields"]
    scored = dataset.exists(fields["score"])
    ids, scores, flags = scored.values(["id", fields["score"], fields["is_ood"]])
    flagged = (np.array(scores, float) >= threshold).tolist()
    changed = {i: now for i, now, before in zip(ids, flagged, flags) if now is not before}
    old_tag = config.get("tag")
    if old_tag:
        flagged_view(dataset, fields).untag_samples(old_tag)
    if changed:
        dataset.set_values(fields["is_ood"], changed, key_field="id")
    tag = tag or old_tag
    if tag:
        flagged_view(dataset, fields).tag_samples(tag)
    words = describe_rule(rule, level)
    describe(dataset, fields, "score", f"likely OOD from {threshold:.4g}")
    describe(dataset, fields, "is_ood", f"{threshold:.4g}: {words}")
    save_views(dataset, fields, config["views"], threshold, words)
    return {"rule": rule, "level": level, "threshold": threshold, "tag": tag, "num_likely_ood": sum(flagged)}


def _choose(dataset, config, rule, level):
    score = config["fields"]["score"]
    scores = dataset.exists(score).values(score) if rule in RULES_OF_ALL_SCORES else []
    return choose_threshold(rule, level, scores, saved_reference(config).detector.calibration_)
