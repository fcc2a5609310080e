"""A full disk, a database that goes away, and kills at any moment: what was under way is finished afterwards.

Some of each by default; ``DIFFPATH_SOAK=full`` takes more.
"""

import json
import os
import random
import subprocess
import sys
import time

import pytest
from conftest import ROOT, demo_samples
from soak.killing import fill_disk, run_killed
from soak.operations import OPERATIONS, difference, finish, make_dataset, snapshot

from diffpath.dataset.patience import PATIENCE_SECONDS

FULL = os.environ.get("DIFFPATH_SOAK") == "full"
AWAY = 45.0 if FULL else 4.0  # seconds


@pytest.fixture(scope="module")
def uninterrupted():
    """What each operation leaves, its number of writes to files, and its seconds."""
    made = {}

    def of(name):
        if name not in made:
            operation, dataset = OPERATIONS[name], make_dataset()
            operation.prepare(dataset)
            began = time.monotonic()
            points = run_killed(lambda: operation.act(dataset), happens=fill_disk)
            seconds = time.monotonic() - began
            finish(operation, dataset)
            made[name] = snapshot(dataset), points, seconds
            dataset.delete()
        return made[name]

    return of


def test_a_full_disk_is_said_and_loses_nothing(uninterrupted):
    chance, failures, said = random.Random(0), [], set()
    names = [name for name in ("compute", "overwrite", "continue", "update") for _ in range(10 if FULL else 1)]
    for name in names:
        operation, (expected, points, _) = OPERATIONS[name], uninterrupted(name)
        dataset = make_dataset()
        operation.prepare(dataset)
        try:
            run_killed(lambda act=operation.act, dataset=dataset: act(dataset), chance.randrange(points), fill_disk)
        except RuntimeError as error:
            said.add(str(error).removeprefix("the action ended by itself: "))
        finish(operation, dataset)
        failures += [f"{name}: {line}" for line in difference(snapshot(dataset), expected)]
        dataset.delete()
    print(f"disk full: {len(names)} times, {len(failures)} differences")
    assert not failures, "\n".join(failures[:8])
    assert said
    others = [each for each in said if not (each.startswith("ValueError") and "cannot be" in each)]
    assert not others, "\n".join(others)


def test_killed_at_any_moment_from_outside(uninterrupted):
    chance, failures = random.Random(1), []
    names = [name for name in OPERATIONS for _ in range(5 if FULL else 1)]
    for name in names if FULL else names[:3]:
        operation, (expected, _, seconds) = OPERATIONS[name], uninterrupted(name)
        dataset = make_dataset()
        operation.prepare(dataset)
        run_killed(lambda act=operation.act, dataset=dataset: act(dataset), after=chance.uniform(0.05, seconds))
        finish(operation, dataset)
        failures += [f"{name}: {line}" for line in difference(snapshot(dataset), expected)]
        dataset.delete()
    print(f"killed from outside: {len(names)} times, {len(failures)} differences")
    assert not failures, "\n".join(failures[:8])


_SCRIPT = """
import sys, json
import fiftyone as fo
import diffpath
from diffpath.folders import scanning
scanning._FLUSH_SECONDS = 0.1  # so that the database is needed soon
dataset = fo.load_dataset("away")
print("ready", flush=True)
diffpath.compute_diffpath(dataset, reference="reference", run_key=sys.argv[1], tag="odd", num_timesteps=2,
                          batch_size=1, num_workers=1, progress=False, dtype="float32")
print(json.dumps([dataset.values(f"{sys.argv[1]}_{kind}") for kind in ("score", "p_value", "is_ood")]), flush=True)
diffpath.rename_diffpath(dataset, sys.argv[1], sys.argv[1] + "2")
print(json.dumps(dataset.list_runs()), flush=True)
"""
_MAKE = """
import sys, json
import fiftyone as fo
dataset = fo.Dataset("away", persistent=True)
dataset.add_samples([fo.Sample(filepath=path, tags=tags) for path, tags in json.load(sys.stdin)], progress=False)
"""


def test_a_database_that_is_away_for_a_while_is_waited_for(tmp_path):
    assert AWAY < PATIENCE_SECONDS
    database = _Database(tmp_path)
    environment = {**os.environ, "FIFTYONE_DATABASE_URI": database.uri, "PYTHONPATH": str(ROOT)}
    environment["FIFTYONE_DEFAULT_DATASET_DIR"] = str(tmp_path / "files")
    run = [sys.executable, "-W", "ignore", "-c"]
    try:
        samples = [*demo_samples("reference", 150 if FULL else 40, tags=["reference"]), *demo_samples("photos", 5)]
        described = json.dumps([[each.filepath, each.tags] for each in samples])
        subprocess.run([*run, _MAKE], input=described, text=True, env=environment, check=True, capture_output=True)
        whole = subprocess.run([*run, _SCRIPT, "whole"], text=True, env=environment, check=True, capture_output=True)
        script = subprocess.Popen(
            [*run, _SCRIPT, "away"], text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert "ready\n" in script.stdout
        while not list((tmp_path / "files").rglob("away-*/heatmaps/*.png"))[5:]:
            assert script.poll() is None, script.stderr.read()
            time.sleep(0.05)
        database.kill()
        time.sleep(AWAY)
        database.start()
        out, error = script.communicate(timeout=300)
    finally:
        database.kill()
    assert script.returncode == 0, error
    if AWAY > 30:  # what is shorter the driver itself waits for
        assert "the database does not answer" in out + error and "the database is back" in out + error
    printed = [[line for line in each.splitlines() if line.startswith("[")] for each in (out, whole.stdout)]
    (scores, runs), (expected, _) = printed
    assert scores == expected
    assert sorted(json.loads(runs)) == ["away2", "whole2"]
    print(f"database away for {AWAY:.0f} s: waited for, and the scores are the same")


class _Database:
    """A mongod of its own, that can be killed and started again."""

    def __init__(self, folder):
        sys.path.insert(0, str(ROOT / "tools"))
        from ensure_mongod import bundled_mongod, runs

        self._program = bundled_mongod() if runs(bundled_mongod()) else "mongod"
        self._data, self._port, self._process = folder / "data", _free_port(), None
        self._data.mkdir()
        self.uri = f"mongodb://127.0.0.1:{self._port}"
        self.start()

    def start(self):
        arguments = ["--dbpath", self._data, "--port", str(self._port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        log = (self._data / "log").open("a")
        self._process = subprocess.Popen([self._program, *arguments], stdout=log, stderr=log)
        log.close()

    def kill(self):
        self._process.kill()
        self._process.wait()


def _free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
