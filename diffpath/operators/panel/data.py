"""What the panel shows, as plain data: histograms, points, one sample's report, a list for export."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt
from fiftyone import ViewField as F
from PIL import Image, ImageOps

from ...dataset.internals import every_image, read_view_numbers, some_of
from ...dataset.run import DiffPathRun
from ...detection.regions import find_regions
from ...folders.maps import MAPS, read_map
from ...options import FEATURE_NAMES
from ..markdown import escape

COMPONENT_NAMES = ("1st principal component", "2nd principal component")
_MOST_OUTLINED = 0.6  # of a picture
_COMPRESS_FROM = 8  # times the middle 90 %: further out, a linear axis squeezes the bulk into a few bars
_PICTURE_SIDE = 480  # pixels
_LOG_COUNTS_FROM = 200  # ratio of the tallest to the lowest bar
_EXPORTED = (
    *("score", "diffusion_score", "embedding_score", "p_value", "content_p_value", "detail_p_value"),
    *("is_ood", "explanation", "error"),
)


class Axis:
    """Where numbers stand on a plot's axis: linear, or logarithmic outside the bulk where outliers need it.

    A logarithmic part takes at most half of the axis, however far the outliers lie.

    Args:
        values: float ``(n,)``, finite
    """

    def __init__(self, values: npt.ArrayLike) -> None:
        values = np.asarray(values, np.float64)
        low, centre, high = np.quantile(values, [0.05, 0.5, 0.95]) if len(values) else (0.0, 0.0, 1.0)
        self.centre = float(centre)
        self.knee = float(max(high - low, 1e-9 * max(abs(centre), 1.0)))  # from the centre, where it bends
        reach = np.abs(values - centre).max() / self.knee if len(values) else 1.0
        self.is_compressed = bool(reach > _COMPRESS_FROM)
        self.slope = float(1 / np.log(reach)) if self.is_compressed else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The axis as JSON-ready values; :meth:`from_dict` undoes it."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Axis:
        axis = cls.__new__(cls)
        vars(axis).update(values)
        return axis

    def place(self, values: npt.ArrayLike) -> np.ndarray:
        """Positions of values, increasing."""
        values = np.asarray(values, np.float64)
        if not self.is_compressed:
            return values
        x = (values - self.centre) / self.knee
        outside = np.abs(x) > 1
        return np.where(outside, np.sign(x) * (1 + self.slope * np.log(np.where(outside, np.abs(x), 1))), x)

    def values(self, positions: npt.ArrayLike) -> np.ndarray:
        """The values at positions: the inverse of :meth:`place`."""
        positions = np.asarray(positions, np.float64)
        if not self.is_compressed:
            return positions
        outside = np.abs(positions) > 1
        x = np.where(outside, np.sign(positions) * np.exp((np.abs(positions) - 1) / self.slope), positions)
        return self.centre + self.knee * x

    def ticks(self, values: npt.ArrayLike, count: int = 7) -> tuple[list[float], list[str]] | None:
        """Positions and labels for a compressed axis over the values' range, or None for a linear axis."""
        if not self.is_compressed:
            return None
        low, high = self.place([np.min(values), np.max(values)]).tolist()
        rounded = sorted({float(f"{value:.2g}") for value in self.values(np.linspace(low, high, count))})
        return self.place(rounded).tolist(), [f"{value:g}" for value in rounded]


@dataclass(frozen=True)
class Histogram:
    """Scores of the reference and of a view in the same bins.

    Attributes:
        edges: float ``(bins + 1,)``: scores; bin k holds ``edges[k] <= score < edges[k + 1]``, and the
            first and last bin reach to infinity
        positions: likewise, on ``axis``
        query: int ``(bins,)``, images of the view
        reference: int ``(bins,)``, images of the reference; zeros where it is not known
        axis: the :class:`Axis`
    """

    edges: np.ndarray
    positions: np.ndarray
    query: np.ndarray
    reference: np.ndarray
    axis: Axis

    @property
    def log_counts(self) -> bool:
        """Whether bars differ so much that their heights need a logarithmic axis."""
        found = [counts[counts > 0] / counts.sum() for counts in (self.query, self.reference) if counts.any()]
        shares = np.concatenate(found) if found else np.ones(1)
        return bool(shares.max() > _LOG_COUNTS_FROM * shares.min())

    def to_dict(self) -> dict[str, Any]:
        """All but the counts as JSON-ready values, for a panel's state; see :meth:`Axis.from_dict` and :func:`span`."""
        values = [float(self.edges[0]), float(self.edges[-1])]
        return {
            "axis": self.axis.to_dict(),
            "edges": self.edges.tolist(),
            "reach": [float(self.positions[0]), float(self.positions[-1])],
            "ticks": self.axis.ticks(values),
            "log_counts": self.log_counts,
        }


def span(edges: Sequence[float] | np.ndarray, first: int, last: int) -> tuple[float | None, float | None]:
    """``(low, high)`` of the bins from ``first`` to ``last``, None where they reach to infinity."""
    low = float(edges[first]) if first > 0 else None
    high = float(edges[last + 1]) if last < len(edges) - 2 else None
    return low, high


def describe_span(low: float | None, high: float | None) -> str:
    """A range of scores in words."""
    if low is None and high is None:
        return "all scores"
    if low is None:
        return f"score below {high:.4g}"
    return f"score from {low:.4g}" + (f" to {high:.4g}" if high is not None else "")


def score_histogram(query: npt.ArrayLike, reference: npt.ArrayLike = (), bins: int = 50) -> Histogram | None:
    """Counts scores in bins of equal width on the axis.

    Args:
        query: scores of the view's images, finite
        reference: scores of the reference images
        bins: their number

    Returns:
        a :class:`Histogram`, or None where there is no score at all
    """
    query, reference = (np.asarray(scores, np.float64) for scores in (query, reference))
    scores = np.concatenate([query, reference])
    if not len(scores):
        return None
    axis = Axis(scores)
    low, high = axis.place([scores.min(), scores.max()])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    positions = np.linspace(low, high, bins + 1)
    edges = axis.values(positions)
    in_query, in_reference = (
        np.bincount(np.searchsorted(edges[1:-1], group, side="right"), minlength=bins) for group in (query, reference)
    )
    return Histogram(edges, positions, in_query, in_reference, axis)


def view_scores(view: fo.DatasetView, run: DiffPathRun) -> np.ndarray:
    """Scores of a view's images, float64 ``(n,)``, without those that have none."""
    return read_view_numbers(view, run.fields["score"])


def reference_scores(run: DiffPathRun) -> np.ndarray:
    """Scores of the run's reference images by fits that did not see them; empty where its file is gone."""
    try:
        return run.reference().detector.calibration_scores_
    except (OSError, ValueError):
        return np.empty(0)


def match_scores(
    view: fo.DatasetView, run: DiffPathRun, low: float | None = None, high: float | None = None
) -> fo.DatasetView:
    """The view's images with ``low <= score < high``, the most anomalous first, as a live expression."""
    score = F(run.fields["score"])
    bounds = [score >= low] if low is not None else []
    bounds += [score < high] if high is not None else []
    view = view.exists(run.fields["score"])  # no score at all would count as a low one
    view = view.match(F.all(bounds)) if bounds else view
    return view.sort_by(run.fields["score"], reverse=True)


@dataclass(frozen=True)
class Points:
    """Images as points: two of the features, or two principal components of all six.

    Attributes:
        ids: sample ids, ``n`` of them
        xy: float64 ``(n, 2)``: features in robust standard deviations of the reference
        scores: float64 ``(n,)``
        total: how many images the view has; all flagged ones and a sample of the others are drawn
    """

    ids: list[str]
    xy: np.ndarray
    scores: np.ndarray
    total: int


def feature_points(view: fo.DatasetView, run: DiffPathRun, x: str, y: str, limit: int = 3000, seed: int = 0) -> Points:
    """Places a view's images by two features.

    Args:
        view: a view or dataset
        run: a :class:`DiffPathRun`
        x, y: two of ``FEATURE_NAMES`` or of ``COMPONENT_NAMES``
        limit: the largest number of points: the most anomalous half, and a sample of the others
        seed: of that sample

    Returns:
        :class:`Points`
    """
    score = run.fields["score"]
    total, scored = view.count(score), view.exists(score)
    columns = ["id", score, run.fields["features"]]
    if total <= limit:
        ids, scores, features = scored.values(columns)
    else:
        ranked = scored.sort_by(score, reverse=True).limit(limit // 2)
        ids, scores, features = ranked.values(columns)
        wanted = limit - len(ids)
        pool = some_of(scored, 2 * wanted / total) if total > 10 * limit else scored  # not all in a random order
        others = pool.match(F(score) < min(scores)).take(wanted, seed=seed)
        ids, scores, features = (a + b for a, b in zip((ids, scores, features), others.values(columns)))
    z = z_scores(run, np.stack(features)) if features else np.empty((0, 6))
    places = dict(zip(FEATURE_NAMES, z.T))
    if {x, y} & set(COMPONENT_NAMES):
        places.update(zip(COMPONENT_NAMES, principal_components(z).T))
    return Points(ids, np.stack([places[x], places[y]], axis=1), np.array(scores, np.float64), total)


def z_scores(run: DiffPathRun, features: npt.ArrayLike) -> np.ndarray:
    """Features in robust standard deviations from the reference's median, float64 ``(..., 6)``."""
    centre, scale = (np.array(values) for values in (run.record.feature_centre, run.record.feature_scale))
    return (np.asarray(features, np.float64) - centre) / scale


def principal_components(z: np.ndarray) -> np.ndarray:
    """The two main directions of standardised features, outliers compressed, float64 ``(n, 2)``."""
    if len(z) < 2 or not np.ptp(z, axis=0).any():
        return np.zeros((len(z), 2))
    from sklearn.decomposition import PCA

    pca = PCA(n_components=2, svd_solver="full").fit(np.arcsinh(z))
    # Each towards its greatest loading, so that the picture does not turn over from one view to the next
    signs = np.sign(pca.components_[np.arange(2), np.abs(pca.components_).argmax(axis=1)])
    return pca.transform(np.arcsinh(z)) * signs


@dataclass(frozen=True)
class Picture:
    """A small copy of a sample's picture, for maps to lie on.

    Attributes:
        source: a data URL
        width, height: in pixels
    """

    source: str
    width: int
    height: int

    @classmethod
    def read(cls, path: str) -> Picture | None:
        """Of a file; None where Pillow can't show it."""
        try:
            with Image.open(path) as image:
                small = ImageOps.exif_transpose(image).convert("RGB")
        except Exception:  # Pillow's decoders raise nearly anything on damaged files
            return None
        small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=85)
        return cls(f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}", *small.size)


@dataclass(frozen=True)
class SampleReport:
    """What a run says of one image.

    Attributes:
        score: the anomaly score, or None where the image could not be scored
        p_value: or None
        z: float64 ``(6,)``: the features' z-scores, or None
        heatmap: float64 ``(H, W)``: 1 − SSIM, cut to the run's ``heatmap_scale``, or None
        anomaly_map: float64 ``(H, W)``: −log₁₀ p, cut to its ``anomaly_map_scale``, or None
        error_map: float64 ``(H, W)``: size of the score error, cut to its ``error_map_scale``, or None
        text: the explanation of a flagged image or the error of an unreadable one, or None
        picture: the image, small, or None where it can't be shown
        content_p_value, detail_p_value: of each look, or None where the run has but one
    """

    score: float | None
    p_value: float | None
    z: np.ndarray | None
    heatmap: np.ndarray | None
    error_map: np.ndarray | None
    anomaly_map: np.ndarray | None
    text: str | None
    picture: Picture | None = None
    content_p_value: float | None = None
    detail_p_value: float | None = None

    @property
    def outline(self) -> tuple[float, float, float, float] | None:
        """The connected places within a tenth of the image's most unusual one, as shares: left, top, width, height.

        None where nothing is unusual, or nearly everything.
        """
        if self.anomaly_map is None or self.anomaly_map.max() <= MAPS["anomaly_map"].scale[0]:
            return None
        least = max(self.anomaly_map.max() - 1, MAPS["anomaly_map"].scale[0] + 0.01)
        box = find_regions(self.anomaly_map, least)[0].box
        return box if box[2] * box[3] <= _MOST_OUTLINED else None


def sample_report(dataset: fo.Dataset, run: DiffPathRun, sample_id: str) -> SampleReport | None:
    """Reads what a run says of one image, a :class:`SampleReport`; None where the sample is not there."""
    found = every_image(dataset).select(sample_id)
    if not len(found):
        return None
    sample = found.first()
    values = {kind: sample.get_field(name) for kind, name in run.fields.items() if sample.has_field(name)}
    features = values.get("features")
    return SampleReport(
        score=values.get("score"),
        p_value=values.get("p_value"),
        z=z_scores(run, features) if features is not None else None,
        **{
            kind: read_map(values[kind].map_path, run.record.map_scales[kind]) if values.get(kind) else None
            for kind in MAPS
        },
        text=values.get("explanation") or values.get("error"),
        picture=Picture.read(sample.filepath),
        content_p_value=values.get("content_p_value"),
        detail_p_value=values.get("detail_p_value"),
    )


def export_csv(view: fo.DatasetView, run: DiffPathRun) -> str:
    """A view as CSV text, in its order: id, file, tags, and what the run says."""
    fields = [run.fields[kind] for kind in _EXPORTED if kind in run.fields]
    columns = view.values(["id", "filepath", "tags", *fields])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "filepath", "tags", *fields])
    for sample_id, path, tags, *values in zip(*columns):
        writer.writerow([sample_id, path, ";".join(tags or ()), *values])
    return text.getvalue()


def describe_report(report: SampleReport, run: DiffPathRun) -> str:
    """A :class:`SampleReport` in a line of Markdown."""
    if report.score is None:
        return f"**Selected image:** no score. {escape(report.text or '') or 'It is not among the images of this run.'}"
    parts = [f"**Selected image:** score {report.score:.4g}"]
    if report.p_value is not None:
        parts.append(f"p-value {report.p_value:.3g}")
    if report.content_p_value is not None and report.detail_p_value is not None:
        parts.append(f"as a whole {report.content_p_value:.3g}, in detail {report.detail_p_value:.3g}")
    parts.append("flagged" if report.score >= run.threshold else "not flagged")
    text = escape(report.text or "")
    return ", ".join(parts) + (f". {text[:1].upper()}{text[1:]}" if text else "")
