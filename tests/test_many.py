"""What is done differently where there are very many images, shown with few: limits are lowered."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import demo_samples

from diffpath import compute_diffpath, continue_diffpath, load_reference, rename_diffpath, update_diffpath
from diffpath.detection import reference as references
from diffpath.folders import maps
from diffpath.folders.files import file_keys
from diffpath.folders.scanning import drain
from diffpath.folders.scoring import fit_files, score_files
from diffpath.options import MethodOptions

FAST = dict(num_timesteps=2, num_workers=2, progress=False)
COUNT, LIMIT = 30, 10


@pytest.fixture
def few_per_folder(monkeypatch):
    monkeypatch.setattr(maps, "MAPS_PER_FOLDER", LIMIT)


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(demo_samples("reference", COUNT - 6, tags=["reference"]), demo_samples("photos", 6))


def files_of(dataset, run, kind):
    return [Path(path) for path in dataset.exists(run.fields[kind]).values(f"{run.fields[kind]}.map_path")]


def check(dataset, run, count):
    for kind in maps.MAPS:
        files = files_of(dataset, run, kind)
        assert len(files) == count and all(path.is_file() for path in files)
        folders = Counter(path.parent for path in files)
        assert len(folders) > 1 and max(folders.values()) <= LIMIT
        assert {path.parent for path in folders} == {run.record.map_folder(kind)}


def test_maps_of_many_images_lie_in_several_folders_and_are_found_in_them(dataset, few_per_folder, make_dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    check(dataset, run, COUNT)
    dataset.add_samples(demo_samples("photos", 4, skip=6), progress=False)
    check(dataset, update_diffpath(dataset, "k", num_workers=2, progress=False), COUNT + 4)
    rename_diffpath(dataset, "k", "other")

    copy = dataset.clone()
    try:
        again = update_diffpath(copy, "other", num_workers=2, progress=False)  # now its files are its own
        check(copy, again, COUNT + 4)
        expected = {path.stem: path.read_bytes() for path in files_of(copy, again, "heatmap")}
        shutil.rmtree(again.record.folder)
        made = continue_diffpath(copy, "other", num_workers=2, progress=False)
        check(copy, made, COUNT + 4)
        assert {path.stem: path.read_bytes() for path in files_of(copy, made, "heatmap")} == expected
    finally:
        copy.delete()


def test_a_folders_maps_lie_in_several_folders_too(few_per_folder, tmp_path):
    paths = [sample.filepath for sample in demo_samples("clean", COUNT)]
    reference = drain(fit_files(paths[:8], options=MethodOptions(num_timesteps=2)), lambda _: None)
    how = dict(rule="false_positive_rate", level=0.05, working=tmp_path / "working", maps=tmp_path / "maps")
    made = drain(score_files(paths, reference, **how), lambda _: None).maps
    for kind, files in made.items():
        folders = Counter(Path(path).parent.name for path in files)
        assert len(folders) > 1 and max(folders.values()) <= LIMIT and all(Path(path).is_file() for path in files), kind
    steps = []
    assert drain(score_files(paths, reference, **how), steps.append).maps == made
    assert steps[0].total == 0  # all of them were found


def test_of_very_many_images_a_reference_is_fitted_on_some_and_the_others_are_judged_by_it(dataset, monkeypatch):
    monkeypatch.setattr(references, "MAX_REFERENCE", 20)
    run = compute_diffpath(dataset, reference="reference", run_key="k", heatmaps=False, **FAST)
    reference = load_reference(run.reference_path)
    assert len(reference.detector.reference_scores_) == len(reference.members) == 20
    assert run.num_scored == dataset.count("k_score") == COUNT
    places = reference.places(file_keys(dataset.values("filepath")))
    scores = np.array(dataset.values("k_score"))
    np.testing.assert_allclose(scores[places >= 0], reference.detector.reference_scores_[places[places >= 0]])
    assert (places >= 0).sum() == 20 and np.isfinite(scores).all()


def test_which_they_are_is_the_same_every_time_and_in_their_order(monkeypatch):
    monkeypatch.setattr(references, "MAX_REFERENCE", 20)
    chosen = references.choose_members(range(1000))
    assert chosen == sorted(set(chosen)) == references.choose_members(range(1000)) and len(chosen) == 20
    assert max(chosen) > 500 and references.choose_members(range(20)) == list(range(20))
