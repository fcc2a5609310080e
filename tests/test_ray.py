"""Several processes or machines give what one gives, to the last digit, whichever of them dies."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, demo_samples
from PIL import Image

from diffpath import RayEngine, compute_diffpath, load_model
from diffpath.cli import main
from diffpath.dataset import ScoringRequest
from diffpath.folders import ray_engine
from diffpath.folders.command import show
from diffpath.folders.engines import check_engine
from diffpath.folders.scanning import make_method
from diffpath.folders.scoring import fit_files, score_files
from diffpath.options import MethodOptions, ModelOptions

FAST = MethodOptions(num_timesteps=2)
HOW = dict(rule="false_positive_rate", level=0.05)
soak = pytest.mark.skipif(os.environ.get("DIFFPATH_SOAK") != "full", reason="processes that die; DIFFPATH_SOAK=full")


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster of four CPUs, whose processes fail where a picture's name says so."""
    ray = pytest.importorskip("ray")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    where = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": where}, "worker_process_setup_hook": "ray_worker.misbehave"},
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference():
    paths = [sample.filepath for sample in demo_samples("reference", 30)]
    return show(fit_files(paths, options=FAST))


@pytest.fixture
def pictures(tmp_path):
    """24 of them, of which one is broken."""
    paths = []
    for number, sample in enumerate(demo_samples("clean", 23)):
        paths.append(shutil.copy(sample.filepath, tmp_path / f"{number:02}.png"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [*map(str, paths[:5]), str(tmp_path / "broken.png"), *map(str, paths[5:])]


def assert_same(verdicts, expected):
    """What two calls found is one, maps included."""
    for name in ("scores", "p_values", "flagged", "features"):
        np.testing.assert_array_equal(getattr(verdicts, name), getattr(expected, name))
    assert verdicts.errors == expected.errors and verdicts.explanations == expected.explanations
    for kind, paths in expected.maps.items():
        for path, other in zip(verdicts.maps[kind], paths):
            assert (path and Path(path).read_bytes()) == (other and Path(other).read_bytes())


def kill_where(marker):
    """Kills, from outside, the process that names itself in a file."""

    def watch():
        while not marker.exists():
            time.sleep(0.05)
        os.kill(int(marker.read_text()), signal.SIGKILL)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    return watcher


@soak
def test_four_workers_of_which_one_is_killed_and_one_has_no_memory_left_give_what_one_process_gives(
    cluster, reference, pictures, tmp_path, monkeypatch
):
    shutil.move(pictures[9], tmp_path / "waits-once.png")
    Image.effect_noise((4000, 4000), 40).resize((8000, 8000)).save(tmp_path / "memory-once.jpg", quality=20)
    pictures[9], pictures[15] = str(tmp_path / "waits-once.png"), str(tmp_path / "memory-once.jpg")
    monkeypatch.setattr(ray_engine, "_LEAST", 4)  # six parts for four actors
    watcher = kill_where(tmp_path / "waits-once.png.pid")
    steps = score_files(pictures, reference, engine=RayEngine(num_actors=4), maps=tmp_path / "ray", **HOW)
    verdicts = show(steps)
    watcher.join(0)
    assert not watcher.is_alive() and (tmp_path / "memory-once.jpg.begun").exists()  # both happened
    assert verdicts.num_scored == 23 and "broken.png" in "".join(verdicts.errors)
    assert_same(verdicts, show(score_files(pictures, reference, maps=tmp_path / "local", **HOW)))


def test_a_dataset_gets_the_fields_that_one_process_gives(cluster, make_dataset, pictures):
    import fiftyone as fo

    dataset = make_dataset([fo.Sample(filepath=path) for path in pictures])
    dataset.limit(12).tag_samples("normal")
    how = dict(reference="normal", num_timesteps=2, progress=False)
    compute_diffpath(dataset, run_key="here", **how)
    run = compute_diffpath(dataset, run_key="there", engine=RayEngine(num_actors=1), **how)
    assert run.num_scored == 23 and run.num_unreadable == 1
    for kind in ("score", "p_value", "is_ood", "explanation", "features", "profile", "statistics", "error"):
        ours, others = dataset.values(f"there_{kind}"), dataset.values(f"here_{kind}")
        assert all(np.array_equal(mine, other) for mine, other in zip(ours, others)), kind
    for kind in ("anomaly_map", "heatmap", "error_map"):
        ours, others = (dataset.exists(f"{key}_{kind}").values(f"{key}_{kind}.map_path") for key in ("there", "here"))
        assert [Path(path).read_bytes() for path in ours] == [Path(path).read_bytes() for path in others]
    assert "ray" not in str(run.config).lower()  # another engine may go on with it


@soak
def test_after_a_killed_driver_the_rerun_scores_only_what_was_missing(cluster, reference, pictures, tmp_path, capsys):
    reference.save(tmp_path / "r.safetensors")
    arguments = ["score", *pictures, "--reference", str(tmp_path / "r.safetensors")]
    killed = ["--csv", str(tmp_path / "killed.csv"), "--engine", "ray", "--num-actors", "1", "--address", cluster]
    script = (
        "import os, sys; from diffpath.folders import scanning, scoring; from diffpath.cli import main\n"
        "import torch; torch.set_num_threads(1)\n"
        "scanning._FLUSH_SECONDS, flush = 0, scoring._Store.flush\n"
        "scoring._Store.flush = lambda store: (flush(store), os.kill(os.getpid(), 9))\n"
        "main(sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-W", "ignore", "-c", script, *arguments, *killed]
    assert subprocess.run(run, env=environment, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    working = tmp_path / "killed.csv.working"
    (left,) = working.glob("*.npz")
    with np.load(left) as stored:
        done = len(stored["paths"])
    assert 0 < done < 23
    steps = score_files(pictures, reference, working=working, engine=RayEngine(num_actors=1), **HOW)
    assert next(steps).total == 24 - done
    steps.close()
    assert main([*arguments, *killed]) == main([*arguments, "--csv", str(tmp_path / "whole.csv")]) == 0
    assert (tmp_path / "killed.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert not working.exists()


@soak
def test_a_picture_that_kills_its_workers_takes_no_others_with_it(cluster, reference, pictures, tmp_path):
    expected = show(score_files(pictures, reference, **HOW))
    shutil.move(pictures[9], tmp_path / "deadly.png")
    pictures[9] = str(tmp_path / "deadly.png")
    verdicts = show(score_files(pictures, reference, engine=RayEngine(num_actors=2), **HOW))
    assert verdicts.errors[9] == f"{pictures[9]} ended each process that was to score it; replace or remove it"
    others = np.arange(24) != 9
    np.testing.assert_array_equal(verdicts.scores[others], expected.scores[others])


class Counted:
    """Stands in for the actor that counts attempts."""

    def __init__(self, begun):
        self.begin = self
        self.begun = begun

    def remote(self, part):
        return self.begun


@pytest.fixture
def scorer(monkeypatch):
    """Makes what an actor runs, in this process."""
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "get", lambda value: value)

    def make(begun=1, is_first=True, wanted=()):
        method = make_method("bundled", FAST, ModelOptions(), device="cpu", dtype=None, batch_size=None)
        here = ray_engine.OnRay(RayEngine(), num_workers=1, device="cpu", batch_size=None)
        return ray_engine.Scorer(here._recipe(method, wanted), Counted(begun), is_first)

    return make


def found(scorer, paths):
    import pickle

    task = {"part": [pickle.dumps({str(number): path for number, path in enumerate(paths)})]}
    outcomes = {}
    for part in scorer(task):
        answer = pickle.loads(part["found"][0])
        if isinstance(answer, ray_engine._Refused):
            return answer.sentence
        outcomes.update(answer)
    return [outcomes[str(number)] for number in range(len(paths))]


def test_an_image_at_which_a_worker_fails_costs_no_other_its_result(scorer, pictures, monkeypatch):
    from diffpath.folders import reading

    load = reading.load_looks

    def fail_at(path, *how):
        if path == pictures[7]:
            raise RuntimeError("nobody foresaw this")
        return load(path, *how)

    monkeypatch.setattr(reading, "load_looks", fail_at)
    outcomes = found(scorer(), pictures)
    assert outcomes[7].sentence == (
        f"{pictures[7]} cannot be scored (RuntimeError: nobody foresaw this); replace or remove it"
    )
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds.count("DiffPathResult") == 22 and kinds[5] == "str" and kinds[7] == "_Failed"


def test_what_is_not_wanted_is_not_sent(scorer, pictures):
    (nothing,), (maps,) = found(scorer(), pictures[:1]), found(scorer(wanted=("heatmaps",)), pictures[:1])
    assert nothing.heatmaps.size == nothing.local.size == maps.error_maps.size == 0
    assert maps.heatmaps.shape == (32, 32) and np.array_equal(maps.descriptor, nothing.descriptor)


def test_a_worker_whose_memory_shrank_leaves_what_it_would_round_otherwise_to_others(scorer, pictures, monkeypatch):
    from diffpath.method.diffpath_v2 import DiffPathV2

    score = DiffPathV2._score_chunk

    def with_little_memory(self, predictor, piece, size):
        if size > 8:
            raise MemoryError
        return score(self, predictor, piece, size)

    monkeypatch.setattr(DiffPathV2, "_score_chunk", with_little_memory)
    outcomes = found(scorer(), pictures[:2])
    assert [outcome.sentence for outcome in outcomes] == [
        f"{path} was left by a process that ran out of memory" for path in pictures[:2]
    ]
    assert all(type(outcome).__name__ == "DiffPathResult" for outcome in found(scorer(is_first=False), pictures[:2]))


def test_a_part_that_was_begun_too_often_is_not_begun_again(scorer, pictures):
    outcomes = found(scorer(begun=4), pictures[:2])
    assert "ended each process that was to score it" in outcomes[1].sentence


def test_a_worker_that_has_another_model_says_so(scorer, pictures):
    other = scorer()
    other._recipe.provenance["model_fingerprint"] = "of another"
    assert "is not the same on machine" in found(other, pictures[:1])
    gone = scorer()
    gone._recipe.provenance["model"] = "/no/such/folder"
    assert "on machine" in found(gone, pictures[:1]) and "/no/such/folder" in found(gone, pictures[:1])


ALL = float("inf")  # of actors that take no GPU


@pytest.mark.parametrize(
    "machines, number, threads, each",
    [
        ([(8, ALL), (8, ALL)], 3, 8, 4),
        ([(8, ALL), (8, ALL)], 2, 8, 8),
        ([(8, ALL), (8, ALL)], 16, 4, 1),
        ([(2, ALL)], 4, 2, 0.5),
        ([(64, ALL)], 4, 2, 2),
        ([(0, ALL)], 1, 4, 0),
        ([(8, 8), (64, 0)], 8, 8, 1),
    ],
)
def test_actors_take_no_more_cpus_than_leave_room_for_all_of_them(machines, number, threads, each):
    assert ray_engine._cpus_per_actor(machines, number, threads) == each


def test_without_a_number_there_are_as_many_actors_as_there_is_room_for():
    assert ray_engine._most_actors([(8, ALL), (6, ALL)], 4) == 3
    assert ray_engine._most_actors([(8, 2.5), (64, 0)], 0) == 2


def test_what_cannot_be_an_engine_is_refused_in_one_sentence(make_dataset, capsys):
    with pytest.raises(ValueError, match="unknown engine 'rai' .did you mean 'ray'..; the engines are local, ray"):
        check_engine("rai")
    with pytest.raises(ValueError, match="engine must be 'local', 'ray' or a RayEngine, got int"):
        check_engine(4)
    with pytest.raises(ValueError, match="num_actors must be at least 1, got 0"):
        RayEngine(num_actors=0)
    with pytest.raises(ValueError, match="gpus_per_actor must not be negative, got -1"):
        RayEngine(gpus_per_actor=-1)
    dataset = make_dataset(demo_samples("clean", 4))
    with pytest.raises(ValueError, match="a model in memory cannot be sent to other processes"):
        compute_diffpath(dataset, model=load_model(), engine="ray")
    with pytest.raises(ValueError, match="a model in memory cannot be sent to other processes"):
        show(fit_files(dataset.values("filepath"), model=load_model(), engine="ray"))
    assert main(["score", "x.png", "--reference", "r", "--num-actors", "3"]) == 1
    assert "add --engine ray" in capsys.readouterr().err


def test_without_ray_one_sentence_says_how_to_install_it(make_dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    dataset = make_dataset(demo_samples("clean", 4))
    with pytest.raises(ValueError, match=r'needs Ray, which is not installed; run: pip install "diffpath\[ray\]"'):
        compute_diffpath(dataset, engine="ray")
    assert dataset.list_runs() == []


def test_an_engine_travels_with_a_request(make_dataset):
    dataset = make_dataset(demo_samples("clean", 4))
    for engine in ("local", "ray", RayEngine("head:6379", num_actors=8, gpus_per_actor=0.5)):
        request = ScoringRequest.of(dataset, engine=engine)
        assert ScoringRequest.from_dict(request.to_dict()).engine == engine


def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(**how):
        raise ConnectionError("Could not find any running Ray instance.\nPlease start one.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ValueError, match="there is no Ray cluster at 'auto' .Could not find any running Ray instance"):
        ray_engine._connected("auto")
