"""The fields and saved views of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from ..folders.maps import MAPS
from ..method.descriptor import PARTS
from ..options import MethodOptions
from .internals import Samples, every_image, put_saved_view
from .lock import writing


@dataclass(frozen=True)
class FieldKind:
    """A kind of field that a run adds to its samples.

    Attributes:
        description: says in the App what it means
        field_type: a FiftyOne field
        arguments: of the field type
    """

    description: str
    field_type: type[fo.Field] = fo.FloatField
    arguments: dict[str, Any] = field(default_factory=dict)


FIELD_KINDS = {
    "score": FieldKind(
        "DiffPath anomaly score: negative log-likelihood under the reference, unbounded; higher = more anomalous"
    ),
    "diffusion_score": FieldKind(
        "The diffusion model's part of the fused score: negative log-likelihood of the descriptor under "
        "the reference, unbounded; higher = more anomalous"
    ),
    "embedding_score": FieldKind(
        "The embedding's part of the fused score: mean distance to its nearest neighbours in the "
        "reference, vectors normalised, in [0, 2]; higher = more anomalous"
    ),
    "content_score": FieldKind(
        "The whole look's part of the score: negative log-likelihood under the reference, unbounded; higher = more "
        "anomalous"
    ),
    "content_p_value": FieldKind("How likely an image of the reference's kind is this anomalous as a whole, in [0, 1]"),
    "detail_score": FieldKind(
        "The detail look's part of the score, at the image's own pixels: negative log-likelihood under the reference, "
        "unbounded; higher = more anomalous"
    ),
    "detail_p_value": FieldKind("How likely an image of the reference's kind is this anomalous in detail, in [0, 1]"),
    "p_value": FieldKind("How likely an image of the reference's kind is at least this anomalous, in [0, 1]"),
    "is_ood": FieldKind("Whether the score reaches the run's threshold", fo.BooleanField),
    "tagged": FieldKind("Whether this run has given its tag to the image", fo.BooleanField),
    "explanation": FieldKind(
        "Which of the six features moved and which way, in robust standard deviations (sd) from the reference's "
        "median; empty for images with a p-value above 0.1",
        fo.StringField,
    ),
    **{part.name: FieldKind(part.description, fo.VectorField) for part in PARTS},
    **{
        kind: FieldKind(
            "{}; PNG levels 0 to 255 are {:g} to {:g}".format(made.description, *made.scale),
            fo.EmbeddedDocumentField,
            {"embedded_doc_type": fo.Heatmap},
        )
        for kind, made in MAPS.items()
    },
    "regions": FieldKind(
        "Boxes around connected places that are unusual for the reference; labels say how rare the most unusual place "
        "in each is, surprise is -log10 of it",
        fo.EmbeddedDocumentField,
        {"embedded_doc_type": fo.Detections},
    ),
    "error": FieldKind("Why this image has no DiffPath score", fo.StringField),
}
_FUSED_SCORE = (
    "DiffPath anomaly score, fused: negative log tail probabilities of the diffusion score and of the embedding score, "
    "summed, at least 0; higher = more anomalous"
)
_LATER = ("tagged",)  # fields that a run has once they are needed
_OF_LOOKS = ("content_score", "content_p_value", "detail_score", "detail_p_value")
_SCORE_OF_LOOKS = (
    "DiffPath anomaly score of both looks: negative log tail probability of the more surprising one, at least 0; "
    "higher = more anomalous"
)
_OF_EMBEDDINGS = ("diffusion_score", "embedding_score")


def field_names(
    run_key: str,
    options: MethodOptions,
    heatmaps: bool,
    embeddings: bool,
    anomaly_maps: bool = True,
    regions: bool = False,
) -> dict[str, str]:
    """The run's fields by kind, such as ``{"score": "K_score", …}``; the score is the one that ranks and flags."""
    left_out = {part.name for part in PARTS if not part.length(options)}
    left_out |= set(_LATER)
    left_out |= set() if heatmaps else set(MAPS)
    left_out |= set() if anomaly_maps else {"anomaly_map"}
    left_out |= set() if regions else {"regions"}
    left_out |= set() if options.detail else set(_OF_LOOKS)
    left_out |= set() if embeddings else set(_OF_EMBEDDINGS)
    return {kind: f"{run_key}_{kind}" for kind in FIELD_KINDS if kind not in left_out}


@dataclass(frozen=True)
class ViewKind:
    """A kind of view that a run saves; an expression over its fields, so that it stays live.

    Attributes:
        name: of the saved view, behind the run's key
        label: what a form shows
        description: of the saved view; the threshold and what it does in words can stand in it
        build: ``(images, fields, threshold)`` to the view
    """

    name: str
    label: str
    description: str
    build: Callable[[Samples, Mapping[str, str], float], fo.DatasetView]

    def view(self, dataset: fo.Dataset, fields: Mapping[str, str], threshold: float) -> fo.DatasetView:
        """The view over all images of a dataset, whatever the slice that the App shows."""
        return self.build(every_image(dataset), fields, threshold)


VIEW_KINDS = {
    "ranked": ViewKind(
        name="most anomalous first",
        label="All images, the most anomalous first",
        description="All scored images, the most anomalous first",
        build=lambda images, fields, _: images.exists(fields["score"]).sort_by(fields["score"], reverse=True),
    ),
    "ood": ViewKind(
        name="likely OOD",
        label="Flagged images",
        description="Images with a score of at least {threshold:.4g}: {rule}",
        build=lambda images, fields, threshold: images.match(F(fields["score"]) >= threshold).sort_by(
            fields["score"], reverse=True
        ),
    ),
    "typical": ViewKind(
        name="most typical",
        label="All images, the most typical first",
        description="All scored images, the most typical first",
        build=lambda images, fields, _: images.exists(fields["score"]).sort_by(fields["score"]),
    ),
    "unreadable": ViewKind(
        name="unreadable",
        label="Images that could not be read",
        description="Images that could not be scored",
        build=lambda images, fields, _: images.exists(fields["error"]),
    ),
}


def view_names(run_key: str) -> dict[str, str]:
    """The run's saved views by kind."""
    return {kind: f"{run_key}: {view.name}" for kind, view in VIEW_KINDS.items()}


def create_fields(dataset: fo.Dataset, fields: dict[str, str]) -> None:
    """Declares those of the run's fields that are not there, with their descriptions, and indexes the score."""
    for kind, name in fields.items():
        if not dataset.has_sample_field(name):
            _declare(dataset, kind, name, _description(fields, kind))
    index_score(dataset, fields["score"])


def index_score(dataset: fo.Dataset, field: str) -> None:
    """Lets the database sort by a field, if it is there."""
    if dataset.has_sample_field(field):
        dataset.create_index(field)


def is_indexed(dataset: fo.Dataset, field: str) -> bool:
    """Whether the database can sort by a field."""
    return field in dataset.get_index_information()


def create_field(dataset: fo.Dataset, run_key: str, kind: str) -> str:
    """Declares one more field of a run; returns its name."""
    name = f"{run_key}_{kind}"
    with writing(dataset, f"declaring {name!r}"):
        if not dataset.has_sample_field(name):
            _declare(dataset, kind, name, FIELD_KINDS[kind].description)
    return name


def describe(dataset: fo.Dataset, fields: dict[str, str], kind: str, addition: str) -> None:
    """Adds to the description of one of the run's fields what is only known later."""
    with writing(dataset, f"describing {fields[kind]!r}"):
        declared = dataset.get_field(fields[kind])
        declared.description = f"{_description(fields, kind)}; {addition}"
        declared.save()


def _declare(dataset: fo.Dataset, kind: str, name: str, description: str) -> None:
    made = FIELD_KINDS[kind]
    dataset.add_sample_field(name, made.field_type, description=description, read_only=False, **made.arguments)


def _description(fields: dict[str, str], kind: str) -> str:
    if kind == "score" and "embedding_score" in fields:
        return _FUSED_SCORE
    return _SCORE_OF_LOOKS if kind == "score" and "detail_score" in fields else FIELD_KINDS[kind].description


def save_views(dataset: fo.Dataset, fields: dict[str, str], views: dict[str, str], threshold: float, rule: str) -> None:
    """Saves the live views under the run's names.

    Args:
        dataset: the dataset
        fields: names of the run's fields by kind
        views: names of the run's views by kind
        threshold: the score from which images are flagged
        rule: what the threshold does, in words
    """
    for kind, made in VIEW_KINDS.items():
        description = made.description.format(threshold=threshold, rule=rule)
        view = made.view(dataset, fields, threshold)
        put_saved_view(dataset, views[kind], view, description)
