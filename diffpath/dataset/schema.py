"""The fields and saved views of a run."""

import fiftyone as fo
from fiftyone import ViewField as F

from .maps import MAPS

_FIELD_TYPES = {
    "score": (fo.FloatField, {}),
    "diffusion_score": (fo.FloatField, {}),
    "embedding_score": (fo.FloatField, {}),
    "p_value": (fo.FloatField, {}),
    "is_ood": (fo.BooleanField, {}),
    "explanation": (fo.StringField, {}),
    "features": (fo.VectorField, {}),
    "profile": (fo.VectorField, {}),
    "statistics": (fo.VectorField, {}),
    "zoomed": (fo.VectorField, {}),
    **{kind: (fo.EmbeddedDocumentField, {"embedded_doc_type": fo.Heatmap}) for kind in MAPS},
    "error": (fo.StringField, {}),
}
_DESCRIPTIONS = {
    "score": "DiffPath anomaly score: negative log-likelihood under the reference, unbounded; higher = more anomalous",
    "diffusion_score": "The diffusion model's part of the fused score: negative log-likelihood of the descriptor under "
    "the reference, unbounded; higher = more anomalous",
    "embedding_score": "The embedding's part of the fused score: mean distance to its nearest neighbours in the "
    "reference, vectors normalised, in [0, 2]; higher = more anomalous",
    "p_value": "How likely an image of the reference's kind is at least this anomalous, in [0, 1]",
    "is_ood": "Whether the score reaches the run's threshold",
    "explanation": "Which of the six features moved and which way, in robust standard deviations (sd) from the "
    "reference's median",
    "features": "DiffPath features: means of the score error, its square and cube, and of its rate over time likewise",
    "profile": "Mean 1 - SSIM between image and reconstruction for each timestep, in [0, 2]",
    "statistics": "For each timestep, one kind after the other: mean score error relative to its size, its "
    "correlation over 4 pixels, mean 1 - SSIM with its standard constants; then the error's logarithmic size in each "
    "quadrant, and its power in bands of spatial frequency",
    "zoomed": "Features, profile and statistics, as far as the run has them, of the image seen larger, in tiles",
    "heatmap": "1 - SSIM between image and reconstruction, averaged over the middle timesteps; PNG levels 0 to 255 are "
    "{:g} to {:g}".format(*MAPS["heatmap"].scale),
    "error_map": "Size of the score error around each pixel, on a logarithmic scale where 0 is a thousandth of the "
    "noise's and 1 all of it; finds foreign parts better than the heatmap; PNG levels 0 to 255 are "
    "{:g} to {:g}".format(*MAPS["error_map"].scale),
    "error": "Why this image has no DiffPath score",
}
_FUSED_SCORE = (
    "DiffPath anomaly score, fused: negative log tail probabilities of the diffusion score and of the embedding score, "
    "summed, at least 0; higher = more anomalous"
)


def field_names(run_key, *, heatmaps, profile, statistics, zoomed, embeddings):
    """The run's fields by kind, such as ``{"score": "K_score", …}``; the score is the one that ranks and flags."""
    parts = dict.fromkeys(("diffusion_score", "embedding_score"), embeddings)
    wanted = {**dict.fromkeys(MAPS, heatmaps), "profile": profile, "statistics": statistics, "zoomed": zoomed, **parts}
    return {kind: f"{run_key}_{kind}" for kind in _FIELD_TYPES if wanted.get(kind, True)}


def view_names(run_key):
    """The run's saved views by kind."""
    return {
        "ranked": f"{run_key}: most anomalous first",
        "ood": f"{run_key}: likely OOD",
        "typical": f"{run_key}: most typical",
        "unreadable": f"{run_key}: unreadable",
    }


def create_fields(dataset, fields):
    """Declares the run's fields with their descriptions and indexes the score."""
    for kind, name in fields.items():
        field_type, arguments = _FIELD_TYPES[kind]
        dataset.add_sample_field(name, field_type, description=_description(fields, kind), read_only=False, **arguments)
    dataset.create_index(fields["score"])


def describe(dataset, fields, kind, addition):
    """Adds to the description of one of the run's fields what is only known later."""
    field = dataset.get_field(fields[kind])
    field.description = f"{_description(fields, kind)}; {addition}"
    field.save()


def _description(fields, kind):
    return _FUSED_SCORE if kind == "score" and "embedding_score" in fields else _DESCRIPTIONS[kind]


def flagged_view(dataset, fields):
    """The samples whose flag is set, in no particular order."""
    return dataset.match(F(fields["is_ood"]) == True)  # noqa: E712


def live_views(dataset, fields, threshold):
    """The run's views by kind, as expressions over its fields, so that they stay live."""
    score, error = fields["score"], fields["error"]
    return {
        "ranked": dataset.exists(score).sort_by(score, reverse=True),
        "ood": dataset.match(F(score) >= threshold).sort_by(score, reverse=True),
        "typical": dataset.exists(score).sort_by(score),
        "unreadable": dataset.exists(error),
    }


def save_views(dataset, fields, views, threshold, rule):
    """Saves the live views under the run's names.

    Args:
        rule: what the threshold does, in words
    """
    descriptions = {
        "ranked": "All scored images, the most anomalous first",
        "ood": f"Images with a score of at least {threshold:.4g}: {rule}",
        "typical": "All scored images, the most typical first",
        "unreadable": "Images that could not be scored",
    }
    for kind, view in live_views(dataset, fields, threshold).items():
        dataset.save_view(views[kind], view, description=descriptions[kind], overwrite=True)
