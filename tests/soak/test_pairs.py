"""Two operations begun at the same instant in two processes leave what one after the other leaves, or one alone.

A few pairs by default; ``DIFFPATH_SOAK=full`` takes every pair, and each with itself.
"""

import os
from itertools import combinations_with_replacement

import pytest
from conftest import demo_samples
from soak.killing import run_at_once
from soak.operations import compute, difference, everything, finish_all, make_dataset, snapshot

from diffpath import delete_diffpath, rename_diffpath, set_diffpath_threshold, update_diffpath
from diffpath.dataset.workspaces import save_run_view, save_workspace

ACTIONS = {
    "compute j": lambda dataset: compute(dataset, run_key="j"),
    "compute l": lambda dataset: compute(dataset, run_key="l", tag="other", seed=2),
    "overwrite k": lambda dataset: compute(dataset, seed=1, overwrite=True),
    "update k": lambda dataset: update_diffpath(dataset, "k", num_workers=1, progress=False),
    "rename k": lambda dataset: rename_diffpath(dataset, "k", "other"),
    "delete k": lambda dataset: delete_diffpath(dataset, "k"),
    "flag by k": lambda dataset: set_diffpath_threshold(dataset, "k", "count", 5),
    "tag by k": lambda dataset: set_diffpath_threshold(dataset, "k", "count", 4, tag="other"),
    "view of k": lambda dataset: save_run_view(dataset, "k", "another", dataset.limit(4)),
    "delete m": lambda dataset: delete_diffpath(dataset, "m"),
    "workspace of m": lambda dataset: save_workspace(dataset, "m"),
}
FEW = [("compute j", "compute l"), ("compute j", "compute j"), ("rename k", "delete m"), ("tag by k", "update k")]
PAIRS = list(combinations_with_replacement(ACTIONS, 2)) if os.environ.get("DIFFPATH_SOAK") == "full" else FEW
_alone = {}


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_two_at_once_damage_nothing(pair):
    dataset = _prepared()
    said = run_at_once(*(lambda act=ACTIONS[name]: act(dataset) for name in pair))
    assert all(each.startswith("ValueError") or not each for each in said), said
    finish_all(dataset)
    found = snapshot(dataset)
    dataset.delete()
    refused = [name for name, each in zip(pair, said) if each]
    left = [name for name in pair if name not in refused] if len(set(pair)) > 1 else list(pair)[: 2 - len(refused)]
    assert left, f"both refused: {said}"
    orders = [left, left[::-1]] if len(left) > 1 else [left]
    differences = [list(difference(found, _after(order))) for order in orders]
    assert not all(differences), f"{said}\n" + "\n".join(min(differences, key=len)[:6])


def _prepared():
    dataset = make_dataset()
    everything(dataset)
    compute(dataset, run_key="m", seed=3, tag=None)
    dataset.add_samples(demo_samples("photos", 2, skip=2), progress=False)
    return dataset


def _after(names):
    """What there is after some actions, one after the other."""
    key = tuple(names)
    if key not in _alone:
        dataset = _prepared()
        for name in names:
            run_at_once(lambda act=ACTIONS[name]: act(dataset))
        finish_all(dataset)
        _alone[key] = snapshot(dataset)
        dataset.delete()
    return _alone[key]
