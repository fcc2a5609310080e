"""What operators on a run have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.record import COMPLETE
from .forms.run import add_run_choice


class RunOperator(foo.Operator):
    """An operator on a run that the form lets one choose.

    Attributes:
        about: arguments of ``OperatorConfig``
        submit: the label of the form's button
        statuses: of the runs that can be chosen, as in ``run_status``
    """

    about: ClassVar[Mapping[str, Any]] = {}
    submit = "Done"
    statuses: Sequence[str] = (COMPLETE,)

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(dynamic=True, **self.about)

    def resolve_input(self, ctx: foo.ExecutionContext) -> types.Property:
        inputs = types.Object()
        run_key = add_run_choice(ctx, inputs, self.statuses)
        if run_key:
            self.add_inputs(ctx, inputs, run_key)
        return types.Property(inputs, view=types.PromptView(label=self.about["label"], submit_button_label=self.submit))

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        """Adds what the form holds beside the run."""
