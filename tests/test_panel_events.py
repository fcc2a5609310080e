"""What the panel asks the database when something happens in it."""

from types import SimpleNamespace

import fiftyone as fo
import numpy as np
import pytest
from conftest import demo_samples

from diffpath import compute_diffpath
from diffpath.operators.panel import data
from diffpath.operators.panel.panel import DiffPathPanel


class Panel:
    """A panel's state on this side, as FiftyOne hands it to events."""

    def __init__(self, **state):
        self.values = state

    @property
    def state(self):
        return SimpleNamespace(**self.values)

    def get_state(self, name):
        return self.values.get(name)

    def set_state(self, name, value=None):
        self.values.update(name if isinstance(name, dict) else {name: value})

    def set_data(self, name, value):
        self.values[name] = value


@pytest.fixture
def dataset(make_dataset):
    dataset = make_dataset(demo_samples("clean", 12))
    compute_diffpath(dataset, run_key="k", num_timesteps=2, heatmaps=False, progress=False)
    return dataset


def test_moving_the_threshold_counts_in_the_view_and_not_over_the_whole_dataset_too(dataset, monkeypatch):
    view = dataset.limit(6)
    panel = Panel(
        opened="k",
        rule="count",
        threshold=0.0,
        choices="choices",
        base=view._serialize(include_uuids=False),
        filters={},
        axes=dict(zip("xy", data.COMPONENT_NAMES)),
    )
    context = SimpleNamespace(panel=panel, dataset=dataset)
    counted, real = [], fo.DatasetView.count

    def count(self, *arguments, **keywords):
        counted.append([type(stage).__name__ for stage in self._stages])
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(fo.DatasetView, "count", count)
    DiffPathPanel()._move(context, "score", float(np.median(view.values("k_score"))), moved="number")
    assert counted
    assert all("Limit" in stages for stages in counted), counted
    assert panel.values["flagged"] == 3
    assert panel.values["scored"] == 6
