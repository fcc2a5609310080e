"""Killed before any of its writes, an operation that is done again leaves what an uninterrupted one leaves.

One point of each by default, each at another part of its way; ``DIFFPATH_SOAK=full`` takes all of them.
"""

import os

import pytest
from soak.killing import run_killed
from soak.operations import OPERATIONS, difference, finish, make_dataset, snapshot


def points_of(name, count):
    if os.environ.get("DIFFPATH_SOAK") == "full":
        return range(count)
    return [int((list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS) * count)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_was_killed_can_be_finished(name):
    operation = OPERATIONS[name]
    expected, count = _uninterrupted(operation)
    failures = []
    for point in points_of(name, count):
        dataset = make_dataset()
        operation.prepare(dataset)
        run_killed(lambda dataset=dataset: operation.act(dataset), point)  # at the last points it may have ended before
        try:
            finish(operation, dataset)
            differences = list(difference(snapshot(dataset), expected))
        except Exception as error:
            differences = [f"{type(error).__name__}: {error}"]
        if differences:
            failures.append(f"point {point} of {count}: " + "\n    ".join(differences[:4]))
        dataset.delete()
    print(f"{name}: {len(points_of(name, count))} of {count} points, {len(failures)} not recovered")
    assert not failures, "\n".join(failures)


def _uninterrupted(operation):
    dataset = make_dataset()
    operation.prepare(dataset)
    count = run_killed(lambda: operation.act(dataset))
    finish(operation, dataset)
    made = snapshot(dataset)
    dataset.delete()
    return made, count
