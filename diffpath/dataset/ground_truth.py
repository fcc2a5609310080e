"""How well a run's scores find what is known to be out-of-distribution."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from .internals import Samples, every_image, root_dataset
from .ownership import own_files
from .patience import waits_for_database
from .run import DiffPathRun
from .sources import images_of

if TYPE_CHECKING:
    from ..detection.evaluation import Evaluation

_Labels = frozenset[Any]


@waits_for_database
def evaluate_diffpath(
    samples: Samples,
    run_key: str,
    ground_truth_field: str,
    *,
    ood: str | Iterable[str] | None = None,
    in_distribution: str | Iterable[str] | None = None,
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
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

    samples = images_of(samples)
    dataset = root_dataset(samples)
    run = DiffPathRun.load(dataset, run_key)
    ood, in_distribution = _as_list(ood), _as_list(in_distribution)
    values, classes = _read_labels(samples, run.fields["score"], ground_truth_field)
    if not (ood or in_distribution) and any(labels - {True, False} for labels in classes):
        known = ", ".join(map(repr, sorted(set().union(*classes))[:20]))
        raise ValueError(
            f"say which labels of {ground_truth_field!r} are out-of-distribution (ood) or in-distribution "
            f"(in_distribution); its labels are {known}"
        )
    truths = [_is_ood(labels, ood, in_distribution) for labels in classes]
    scores = np.array([score for score, truth in zip(values, truths) if truth is not None], float)
    is_ood = np.array([truth for truth in truths if truth is not None], bool)
    names = {
        "positive_class": _name(ood, in_distribution, "out-of-distribution"),
        "negative_class": _name(in_distribution, ood, "in-distribution"),
    }
    result = evaluate(
        scores,
        is_ood,
        threshold=run.threshold,
        num_bootstrap=num_bootstrap,
        confidence=confidence,
        random_state=seed,
        **names,
    )
    record = own_files(dataset, run.record)
    picture = Path(record.folder) / f"evaluation-{re.sub(r'[^A-Za-z0-9]+', '-', ground_truth_field)}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    low, high = result.intervals["auroc"]
    title = f"{run_key}: AUROC {result.auroc:.3f} [{low:.3f}, {high:.3f}]"
    write_histogram(picture, scores[~is_ood], scores[is_ood], threshold=run.threshold, title=title, **names)
    result = replace(result, histogram=str(picture))
    record.patch_item(dataset, "evaluations", ground_truth_field, result.to_dict())
    return result


def _read_labels(samples: Samples, score: str, field_name: str) -> tuple[list[float], list[_Labels]]:
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
    elif not isinstance(field, fo.BooleanField | fo.StringField):
        raise ValueError(f"{field_name!r} must hold booleans, strings, lists of strings or classifications")
    # Not of the samples themselves: a view may leave out the run's fields
    scores = dict(zip(*every_image(root_dataset(samples)).exists(score).values(["id", score])))
    labels = [
        (scores[i], label) for i, label in zip(*samples.values(["id", path])) if i in scores and label is not None
    ]
    known = [(s, frozenset(label if listed else [label])) for s, label in labels]
    return [s for s, _ in known], [label for _, label in known]


def _is_ood(labels: _Labels, ood: Sequence[str], in_distribution: Sequence[str]) -> bool | None:
    """Whether an image with these labels is out-of-distribution, or None where that is not said."""
    if labels <= {True, False} and not (ood or in_distribution):
        return True in labels
    if ood and labels & set(ood):
        return True
    if in_distribution and labels & set(in_distribution):
        return False
    return None if ood and in_distribution else not ood


def _name(own: Sequence[str], other: Sequence[str], plain: str) -> str:
    if own:
        return ", ".join(map(str, own))
    return f"not {', '.join(map(str, other))}" if other else plain


def _as_list(value: str | Iterable[str] | None) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or [])
