"""How well do scores separate what is known to be out-of-distribution? The field's measures."""

from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

TRUE_POSITIVE_RATE = 0.95
_MEASURES = ("auroc", "aupr_ood", "aupr_in", "fpr95")


@dataclass(frozen=True)
class Evaluation:
    """Measures with the out-of-distribution images as the positive class.

    Attributes:
        positive_class: what the positive class is, in words
        negative_class: likewise
        num_positive: out-of-distribution images
        num_negative: in-distribution images
        auroc: area under the ROC curve, in [0, 1]
        aupr_ood: average precision with the out-of-distribution images as positives
        aupr_in: average precision with the in-distribution images as positives
        fpr95: share of in-distribution images flagged where 95 % of the
            out-of-distribution images are
        intervals: ``{measure: [low, high]}``: percentile bootstrap intervals, each class
            resampled by itself
        confidence: of the intervals, in (0, 1)
        threshold: the run's threshold
        true_positive_rate: share of the out-of-distribution images at or above it
        false_positive_rate: share of the in-distribution images at or above it
        histogram: the path of a picture of both classes' scores, or None
    """

    positive_class: str
    negative_class: str
    num_positive: int
    num_negative: int
    auroc: float
    aupr_ood: float
    aupr_in: float
    fpr95: float
    intervals: dict
    confidence: float
    threshold: float
    true_positive_rate: float
    false_positive_rate: float
    histogram: str | None = None

    def to_dict(self):
        """The measures as JSON-ready values."""
        return asdict(self)

    def __str__(self):
        def line(name, label):
            low, high = self.intervals[name]
            return f"{label:<32}{getattr(self, name):.3f}  [{low:.3f}, {high:.3f}]"

        return "\n".join(
            [
                f"Positive class: {self.positive_class} ({self.num_positive:,} images)",
                f"Negative class: {self.negative_class} ({self.num_negative:,} images)",
                line("auroc", "AUROC"),
                line("aupr_ood", "AUPR, out-of-distribution"),
                line("aupr_in", "AUPR, in-distribution"),
                line("fpr95", "FPR at 95 % TPR"),
                f"Intervals: {self.confidence:.0%} bootstrap",
                f"At the threshold {self.threshold:.4g}: {self.true_positive_rate:.1%} of the positive class "
                f"and {self.false_positive_rate:.1%} of the negative class are flagged",
            ]
        )


def evaluate(
    scores,
    is_ood,
    *,
    threshold,
    positive_class="out-of-distribution",
    negative_class="in-distribution",
    num_bootstrap=1000,
    confidence=0.95,
    random_state=0,
):
    """Measures how well scores separate two classes.

    Args:
        scores: float ``(n,)``, higher = more anomalous
        is_ood: bool ``(n,)``: whether an image is known to be out-of-distribution
        threshold: the score from which images are flagged
        positive_class: what the out-of-distribution images are, in words
        negative_class: what the others are
        num_bootstrap: resamples for the intervals
        confidence: of the intervals, in (0, 1)
        random_state: seed of the resampling

    Returns:
        an :class:`Evaluation`

    Raises:
        ValueError: if a class has no image or a score is not finite
    """
    scores, is_ood = np.asarray(scores, np.float64), np.asarray(is_ood, bool)
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; leave out the images that could not be scored")
    positive, negative = scores[is_ood], scores[~is_ood]
    for name, part in ((positive_class, positive), (negative_class, negative)):
        if not len(part):
            raise ValueError(f"there are no scored images of the class {name!r}; both classes need some")
    rng = np.random.default_rng(random_state)
    resampled = [
        _measure(rng.choice(negative, len(negative)), rng.choice(positive, len(positive))) for _ in range(num_bootstrap)
    ]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    bounds = np.quantile(resampled, tails, axis=0).T
    return Evaluation(
        positive_class=positive_class,
        negative_class=negative_class,
        num_positive=len(positive),
        num_negative=len(negative),
        **dict(zip(_MEASURES, _measure(negative, positive))),
        intervals={name: pair.tolist() for name, pair in zip(_MEASURES, bounds)},
        confidence=confidence,
        threshold=float(threshold),
        true_positive_rate=float((positive >= threshold).mean()),
        false_positive_rate=float((negative >= threshold).mean()),
    )


def _measure(negative, positive):
    labels = np.repeat([0, 1], [len(negative), len(positive)])
    scores = np.concatenate([negative, positive])
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return (
        float(roc_auc_score(labels, scores)),
        float(average_precision_score(labels, scores)),
        float(average_precision_score(1 - labels, -scores)),
        float(false_positive_rate[np.argmax(true_positive_rate >= TRUE_POSITIVE_RATE)]),
    )
