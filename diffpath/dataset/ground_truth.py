"""How well a run's scores find what is known to be out-of-distribution."""

import re
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import numpy as np

from .record import read_finished, write_config


def evaluate_diffpath(
    samples, run_key, ground_truth_field, *, ood=None, in_distribution=None, num_bootstrap=1000, confidence=0.95, seed=0
):
    """Measures a run against known labels, with the out-of-distribution images as the positive class.

    The measures and the path of a two-colour histogram are recorded with the run too.

    Args:
        samples: a dataset or view: the images that count. Those without a score or a
            label are left out
        run_key: the run's key
        ground_truth_field: a field of booleans (true = out-of-distribution), of strings,
            of classifications, or ``"tags"``
        ood: the labels, or the label, of out-of-distribution images; all others are
            in-distribution
        in_distribution: the labels, or the label, of in-distribution images; all others
            are out-of-distribution. With both, images with other labels are left out
        num_bootstrap: resamples for the intervals
        confidence: of the intervals, in (0, 1)
        seed: of the resampling

    Returns:
        a :class:`diffpath.detection.evaluation.Evaluation`

    Raises:
        ValueError: if there is no such run or field, the labels do not say which images
            are out-of-distribution, or one class has no scored image
    """
    from ..detection.evaluation import evaluate
    from ..detection.evaluation_plot import write_histogram

    dataset = samples._root_dataset
    config = read_finished(dataset, run_key)
    ood, in_distribution = _as_list(ood), _as_list(in_distribution)
    values, classes = _read_labels(samples, config["fields"]["score"], ground_truth_field)
    if not (ood or in_distribution) and any(labels - {True, False} for labels in classes):
        known = ", ".join(map(repr, sorted(set().union(*classes))[:20]))
        raise ValueError(
            f"say which labels of {ground_truth_field!r} are out-of-distribution (ood) or in-distribution "
            f"(in_distribution); its labels are {known}"
        )
    is_ood = [_judge(labels, ood, in_distribution) for labels in classes]
    known = np.array([truth is not None for truth in is_ood], bool)
    scores = np.array(values, float)[known]
    is_ood = np.array([truth for truth in is_ood if truth is not None], bool)
    names = {
        "positive_class": _name(ood, in_distribution, "out-of-distribution"),
        "negative_class": _name(in_distribution, ood, "in-distribution"),
    }
    result = evaluate(
        scores,
        is_ood,
        threshold=config["threshold"],
        num_bootstrap=num_bootstrap,
        confidence=confidence,
        random_state=seed,
        **names,
    )
    picture = Path(config["folder"]) / f"evaluation-{re.sub(r'[^A-Za-z0-9]+', '-', ground_truth_field)}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    low, high = result.intervals["auroc"]
    title = f"{run_key}: AUROC {result.auroc:.3f} [{low:.3f}, {high:.3f}]"
    write_histogram(picture, scores[~is_ood], scores[is_ood], threshold=config["threshold"], title=title, **names)
    result = replace(result, histogram=str(picture))
    config["evaluations"] = {**config.get("evaluations", {}), ground_truth_field: result.to_dict()}
    write_config(dataset, run_key, config)
    return result


def _read_labels(samples, score, field_name):
    """Scores, and a set of labels for each: ``True`` or ``False`` of a boolean field."""
    field = samples.get_field(field_name)
    if field is None:
        names = ", ".join(sorted(samples.get_field_schema()))
        raise ValueError(f"there is no field {field_name!r}; the fields are {names}")
    path, listed = field_name, False
    if isinstance(field, fo.EmbeddedDocumentField) and issubclass(field.document_type, fo.Classification):
        path = f"{field_name}.label"
    elif isinstance(field, fo.ListField) and isinstance(field.field, fo.StringField):
        listed = True
    elif not isinstance(field, (fo.BooleanField, fo.StringField)):
        raise ValueError(f"{field_name!r} must hold booleans, strings, lists of strings or classifications")
    scores, labels = samples.exists(score).values([score, path])
    known = [(s, frozenset(label) if listed else {label}) for s, label in zip(scores, labels) if label is not None]
    return [s for s, _ in known], [label for _, label in known]


def _judge(labels, ood, in_distribution):
    """Whether an image with these labels is out-of-distribution, or None where that is not said."""
    if labels <= {True, False} and not (ood or in_distribution):
        return True in labels
    if ood and labels & set(ood):
        return True
    if in_distribution and labels & set(in_distribution):
        return False
    return None if ood and in_distribution else not ood


def _name(own, other, plain):
    if own:
        return ", ".join(map(str, own))
    return f"not {', '.join(map(str, other))}" if other else plain


def _as_list(value):
    return [value] if isinstance(value, str) else list(value or [])
