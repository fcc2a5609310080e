"""The operator that measures a run against known labels."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset import evaluate_diffpath
from ..dataset.internals import Samples, every_image
from ..detection.evaluation import Evaluation
from .forms.inputs import add_required_choice, target_images
from .forms.run import add_run_choice

_LABEL = "Evaluate DiffPath run"
_MEASURES = {
    "auroc": "AUROC",
    "aupr_ood": "AUPR, out-of-distribution as positives",
    "aupr_in": "AUPR, in-distribution as positives",
    "fpr95": "FPR at 95 % TPR",
}


class EvaluateDiffPath(foo.Operator):
    """Shows AUROC, AUPR and FPR with intervals, and both classes' scores."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="evaluate_diffpath",
            label=_LABEL,
            description="Measure how well a run's scores find images that are known to be out-of-distribution",
            dynamic=True,
            risk_level="low",
            icon="insights",
        )

    def __call__(
        self, sample_collection: Samples, run_key: str, ground_truth_field: str, **arguments: Any
    ) -> Evaluation:
        """:func:`diffpath.evaluate_diffpath`."""
        return evaluate_diffpath(sample_collection, run_key, ground_truth_field, **arguments)

    def resolve_input(self, ctx: foo.ExecutionContext) -> types.Property:
        inputs = types.Object()
        inputs.view_target(ctx, require_flat=True)
        add_run_choice(ctx, inputs)
        fields = label_fields(ctx.dataset)
        add_required_choice(
            inputs, "ground_truth_field", list(fields), "Ground truth", "the dataset has no field of labels; add one"
        )
        field = ctx.params.get("ground_truth_field")
        if field in fields and not isinstance(ctx.dataset.get_field(field), fo.BooleanField):
            labels = every_image(ctx.dataset).distinct(fields[field])
            for name, label, optional in (
                ("ood", "Out-of-distribution labels", "All others count as in-distribution"),
                ("in_distribution", "In-distribution labels", "Leave empty for all others"),
            ):
                choices = types.AutocompleteView(multiple=True)
                for value in labels:
                    choices.add_choice(value, label=str(value))
                inputs.list(name, types.String(), default=None, label=label, description=optional, view=choices)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, Any]:
        params = {key: value for key, value in ctx.params.items() if value not in (None, "", [])}
        for name in ("run_key", "ground_truth_field"):
            if name not in params:
                raise ValueError(f"choose a value for {name}")
        result = evaluate_diffpath(
            target_images(ctx),
            params["run_key"],
            params["ground_truth_field"],
            ood=params.get("ood"),
            in_distribution=params.get("in_distribution"),
        )
        picture = base64.b64encode(Path(result.histogram or "").read_bytes()).decode()
        return {**result.to_dict(), "picture": f"data:image/png;base64,{picture}", "summary": summarise(result)}

    def resolve_output(self, ctx: foo.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.str("summary", view=types.MarkdownView())
        outputs.str("picture", view=types.ImageView(height="320px"))
        return types.Property(outputs, view=types.View(label="DiffPath evaluation"))


def label_fields(dataset: fo.Dataset) -> dict[str, str]:
    """Fields that can say what an image is, and the path of their labels."""
    paths = {}
    for name, field in dataset.get_field_schema().items():
        if isinstance(field, fo.EmbeddedDocumentField) and issubclass(field.document_type, fo.Classification):
            paths[name] = f"{name}.label"
        elif isinstance(field, fo.BooleanField | fo.StringField) and name not in ("id", "filepath"):
            paths[name] = name
        elif isinstance(field, fo.ListField) and isinstance(field.field, fo.StringField):
            paths[name] = name
    return paths


def summarise(result: Evaluation) -> str:
    """The measures as a Markdown table."""
    lines = [
        f"Positive class: **{result.positive_class}** ({result.num_positive:,} images), "
        f"negative class: **{result.negative_class}** ({result.num_negative:,} images)",
        "",
        f"| measure | value | {result.confidence:.0%} interval |",
        "|---|---|---|",
    ]
    for name, label in _MEASURES.items():
        low, high = result.intervals[name]
        lines.append(f"| {label} | {getattr(result, name):.3f} | {low:.3f} to {high:.3f} |")
    lines += [
        "",
        f"At the run's threshold, {result.true_positive_rate:.1%} of the positive class and "
        f"{result.false_positive_rate:.1%} of the negative class are flagged.",
    ]
    return "\n".join(lines)
