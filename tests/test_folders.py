"""Folders are scored without a database as datasets are: the same scores, resumed, a reason for each broken file."""

import csv
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import tiny_models as tiny
from conftest import ROOT, demo_samples
from PIL import Image
from skimage import data

from diffpath import compute_diffpath, load_reference
from diffpath.cli import main
from diffpath.errors import ImageError
from diffpath.folders.command import show
from diffpath.folders.listing import list_pictures
from diffpath.folders.scoring import fit_files, score_files
from diffpath.options import MethodOptions, ModelOptions

GOOD = ROOT / "demo" / "data" / "reference"


def copy_demo(folder, kind, count):
    folder.mkdir(parents=True, exist_ok=True)
    for sample in demo_samples(kind, count):
        name = sample.filepath.rsplit("/", 1)[1]
        shutil.copy(sample.filepath, folder / f"{kind}-{name}")
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return copy_demo(tmp_path_factory.mktemp("good"), "reference", 40)


@pytest.fixture(scope="module")
def reference(good, tmp_path_factory):
    path = tmp_path_factory.mktemp("fitted") / "r.safetensors"
    assert main(["fit", str(good), "-o", str(path), "--num-timesteps", "4"]) == 0
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = copy_demo(tmp_path / "pictures", "clean", 12)
    copy_demo(folder / "below", "photos", 4)
    (folder / "broken <b>.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture\n")
    return folder


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def score(pictures, reference, *flags):
    return main(["score", str(pictures), "--reference", str(reference), *map(str, flags)])


def test_a_table_has_a_row_for_each_file_broken_ones_too(pictures, reference, tmp_path, capsys):
    assert score(pictures, reference, "--csv", tmp_path / "out.csv") == 0
    rows = read_csv(tmp_path / "out.csv")
    assert len(rows) == 17 and all(Path(row["filepath"]).is_file() for row in rows)
    (broken,) = [row for row in rows if row["reason"]]
    assert (
        "broken" in broken["filepath"] and broken["score"] == broken["p_value"] == "" and broken["flagged"] == "False"
    )
    scores = {kind: [float(r["score"]) for r in rows if f"{kind}-" in r["filepath"]] for kind in ("clean", "photos")}
    assert min(scores["photos"]) > np.median(scores["clean"])
    assert all(row["flagged"] == "True" for row in rows if "photos-" in row["filepath"])
    assert "16 scored" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.working")) and not list(tmp_path.glob("*partial*"))


def test_scores_are_those_of_a_dataset(pictures, good, reference, tmp_path, make_dataset):
    score(pictures, reference, "--csv", tmp_path / "out.csv")
    rows = {row["filepath"]: row for row in read_csv(tmp_path / "out.csv") if not row["reason"]}
    fitted = make_dataset([fo.Sample(filepath=str(path)) for path in sorted(good.iterdir())])
    dataset = make_dataset([fo.Sample(filepath=path) for path in rows])
    compute_diffpath(dataset, reference=fitted, run_key="k", num_timesteps=4, progress=False)
    paths, scores, p_values, flags = dataset.values(["filepath", "k_score", "k_p_value", "k_is_ood"])
    assert scores == [float(rows[path]["score"]) for path in paths]
    assert p_values == [float(rows[path]["p_value"]) for path in paths]
    assert flags == [rows[path]["flagged"] == "True" for path in paths]


def test_pictures_of_the_reference_do_not_vouch_for_themselves(good, reference, tmp_path):
    score(good, reference, "--csv", tmp_path / "out.csv")
    p_values = [float(row["p_value"]) for row in read_csv(tmp_path / "out.csv")]
    assert 0.4 < np.median(p_values) < 0.6


def test_the_exit_status_says_whether_too_many_are_flagged(pictures, reference, capsys):
    assert score(pictures, reference, "--fail-above", 0.02) == 3
    assert "more than 2.00% are flagged" in capsys.readouterr().err
    assert score(pictures, reference, "--fail-above", 0.9) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2].rsplit("/", 1)[1][:7] for line in printed[:4]] == ["photos-"] * 4
    assert "broken" in printed[-1]


def test_what_is_flagged_is_chosen_by_any_rule(pictures, reference, tmp_path, capsys):
    assert score(pictures, reference, "--rule", "count", "--level", 3, "--report", tmp_path / "r.html") == 0
    assert "3 flagged" in capsys.readouterr().err
    assert "flagged: the 3 highest scores" in (tmp_path / "r.html").read_text()
    assert score(pictures, reference, "--rule", "percentile") == 0  # from the 95th on
    assert "1 flagged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--rule", "nothing"], "rule must be one of false_positive_rate, false_discovery_rate"),
        (["--rule", "score"], "level of the rule 'score' must be a finite number, got None"),
        (["--level", "2"], "level of the rule 'false_positive_rate' must be a share"),
    ],
)
def test_a_rule_that_is_none_is_one_sentence(flags, sentence, pictures, reference, capsys):
    assert score(pictures, reference, *flags) == 1
    assert sentence in capsys.readouterr().err


def test_a_report_is_one_file_that_needs_no_network(pictures, reference, tmp_path):
    score(pictures, reference, "--report", tmp_path / "r.html", "--csv", tmp_path / "out.csv")
    page = (tmp_path / "r.html").read_text()
    assert not re.findall(r"(?:src|href)='(?!data:)", page) and "<script" not in page
    assert page.count("<figure") == 16 and page.count("class='map'") == 16
    assert "broken &lt;b&gt;.png" in page and "broken <b>" not in page
    names = re.findall(r"<figcaption><b>(.*?)</b>", page)
    assert all("photos" in name for name in names[:4])
    assert "anomaly_map" not in read_csv(tmp_path / "out.csv")[0]  # they are not kept


def test_maps_are_beside_each_other_and_named_in_the_table(pictures, reference, tmp_path):
    score(pictures, reference, "--maps", tmp_path / "maps", "--parquet", tmp_path / "out.parquet")
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    for kind in ("anomaly_map", "heatmap", "error_map"):
        made = [row[kind] for row in rows if not row["reason"]]
        assert len(set(made)) == 16 and all(Image.open(path).size == (32, 32) for path in made)
    assert [row["heatmap"] for row in rows if row["reason"]] == [None]


def test_what_is_interrupted_goes_on(good, reference, tmp_path):
    wanted = copy_demo(tmp_path / "many", "clean", 90)
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    score(wanted, reference, "--csv", whole, "--batch-size", 4)
    script = "import sys; from diffpath.folders import scanning; scanning._FLUSH_SECONDS = 0; "
    script += "from diffpath.cli import main; main(sys.argv[1:])"
    arguments = ["score", wanted, "--reference", reference, "--csv", killed, "--batch-size", "4"]
    run = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    process = subprocess.Popen(run, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    working = tmp_path / "killed.csv.working"
    while len(list(working.glob("*.npz"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    left = set(working.glob("*.npz"))
    steps = score_files(
        list_pictures([wanted]), load_reference(reference), rule="false_positive_rate", level=0.05, working=working
    )
    first = next(steps)
    assert first.total <= 90 - 4 * len(left)
    steps.close()
    assert score(wanted, reference, "--csv", killed, "--batch-size", 4) == 0
    assert killed.read_text() == whole.read_text()
    assert not working.exists()


def test_a_file_that_was_changed_meanwhile_is_scored_anew(good, reference, tmp_path):
    folder = copy_demo(tmp_path / "some", "clean", 5)
    working = tmp_path / "working"

    def steps():
        return score_files(
            list_pictures([folder]), load_reference(reference), rule="false_positive_rate", level=0.05, working=working
        )

    interrupted = steps()
    assert [step.done for step in interrupted][-1] == 5
    shutil.rmtree(working, ignore_errors=True)
    interrupted = steps()
    for step in interrupted:
        if step.done == 5:
            break
    interrupted.close()
    first = sorted(folder.iterdir())[0]
    shutil.copy(demo_samples("photos", 1)[0].filepath, first)
    assert next(steps()).total == 1


def test_a_picture_whose_maps_are_gone_is_scored_anew(reference, tmp_path):
    folder = copy_demo(tmp_path / "some", "clean", 5)
    how = dict(rule="false_positive_rate", level=0.05, working=tmp_path / "working", maps=tmp_path / "maps")
    verdicts = show(score_files(list_pictures([folder]), load_reference(reference), **how))
    assert next(score_files(verdicts.paths, load_reference(reference), **how)).total == 0
    Path(verdicts.maps["heatmap"][2]).unlink()
    assert next(score_files(verdicts.paths, load_reference(reference), **how)).total == 1
    assert show(score_files(verdicts.paths, load_reference(reference), **how)).maps == verdicts.maps
    assert all(Path(path).is_file() for path in verdicts.maps["heatmap"])


@pytest.mark.parametrize("kind", ["folder", "pattern", "text", "table", "input", "file"])
def test_pictures_are_named_in_many_ways(kind, pictures, tmp_path, monkeypatch):
    expected = [str(path) for path in sorted(pictures.glob("clean-*.png"))]
    names = [os.path.relpath(path, tmp_path) for path in expected]
    if kind == "folder":
        assert set(expected) < set(list_pictures([pictures])) and len(list_pictures([pictures, pictures])) == 17
        return
    what = {
        "pattern": [str(pictures / "clean-*.png")],
        "text": [tmp_path / "list.txt"],
        "table": [tmp_path / "list.csv"],
        "input": ["-"],
        "file": expected,
    }[kind]
    (tmp_path / "list.txt").write_text("\n".join([*names, "", names[0]]))
    (tmp_path / "list.csv").write_text(
        "".join(f"{row}\r\n" for row in ["label,path", *(f"a,{name}" for name in names)])
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(names)))
    assert [str(Path(path).resolve()) for path in list_pictures(what)] == expected


@pytest.mark.parametrize(
    "what, sentence",
    [
        (["nowhere"], "there is no folder or file 'nowhere'"),
        (["*.nothing"], "there are no pictures in"),
        (["table.csv"], "has no column filepath, path, file, filename or image"),
    ],
)
def test_what_names_no_pictures_is_one_sentence(what, sentence, tmp_path, monkeypatch, capsys, reference):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ImageError, match=sentence):
        list_pictures(what)
    assert main(["score", *what, "--reference", str(reference)]) == 1
    assert sentence in capsys.readouterr().err


def test_a_reference_says_what_it_is(reference, capsys):
    assert main(["inspect", str(reference)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"Fitted on: +40 pictures", said) and "num_timesteps 4" in said and "Anomaly maps: yes" in said
    assert main(["inspect", "nothing.safetensors"]) == 1
    assert "no reference can be read from nothing.safetensors" in capsys.readouterr().err


def test_too_few_pictures_are_no_reference(pictures, tmp_path, capsys):
    assert main(["fit", str(pictures / "broken <b>.png"), "-o", str(tmp_path / "r.safetensors")]) == 1
    assert "a reference needs at least 3 pictures, 0 of 1 can be read" in capsys.readouterr().err
    assert main(["fit", str(pictures), "--num-timesteps", "0"]) == 1
    assert "num_timesteps" in capsys.readouterr().err


def test_every_option_of_method_and_model_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    said = set(re.findall(r"--([a-z-]+)", capsys.readouterr().out))
    options = [each.name.replace("_", "-") for each in (*fields(MethodOptions), *fields(ModelOptions))]
    assert {*options, "model", "device", "dtype", "batch-size", "num-workers"} <= said


def test_options_do_from_the_command_line_what_they_do_from_python(good, tmp_path, capsys):
    model, path = tiny.write_at_root(tmp_path / "model", tiny.unet(), tiny.EARLY_SCHEDULER), tmp_path / "r.safetensors"
    fit = ["fit", str(good), "-o", str(path), "--model", str(model), "--dtype", "float32", "--batch-size", "40"]
    assert main(fit) == 1
    assert "pass prediction_type='epsilon'" in capsys.readouterr().err
    assert main([*fit, "--prediction-type", "noise"]) == 1
    assert "prediction_type must be one of epsilon, sample, v_prediction, got 'noise'" in capsys.readouterr().err
    flags = "--prediction-type epsilon --preset paper --num-timesteps 3 --detail 1 --zoom 2 --ssim-window 5"
    assert main([*fit, *flags.split()]) == 0
    made = load_reference(path).provenance
    expected = MethodOptions.from_preset("paper", num_timesteps=3, detail=1, zoom=2, ssim_window=5).to_dict()
    assert {**made["options"], "resolution": None} == expected
    assert made["model_options"] == {"prediction_type": "epsilon"} and made["dtype"] == "float32"
    assert score(good, path, "--batch-size", "40") == 0  # it takes all of them from the reference


def test_what_is_given_stands_before_what_the_preset_says(good, tmp_path):
    path = tmp_path / "r.safetensors"
    flags = "--error-power signed --preset=paper --num-timesteps 2".split()
    assert main(["fit", str(good), "-o", str(path), *flags]) == 0
    options = load_reference(path).provenance["options"]
    assert options["error_power"] == "signed" and options["ssim_weighting"] and options["ssim_sigma"] == 1.5


def test_large_pictures_get_the_detail_look_too(tmp_path):
    photograph = data.astronaut()
    for number in range(12):
        y, x = divmod(number, 4)
        Image.fromarray(photograph[y * 120 : y * 120 + 150, x * 120 : x * 120 + 150]).save(tmp_path / f"{number}.png")
    reference = show(fit_files(list_pictures([tmp_path]), num_workers=2))
    assert reference.provenance["options"]["detail"] == 3


def test_the_commands_of_the_page_run(good, pictures, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "score-folders.md").read_text()
    (tmp_path / "good-pictures").symlink_to(good)
    (tmp_path / "new-pictures").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    commands = [
        shlex.split(line)[1:]
        for line in page.splitlines()
        if line.startswith(("diffpath fit", "diffpath score")) and "://" not in line  # test_addresses.py has those
    ]
    assert [main(command) for command in commands] == [0, 0]
    columns = set(read_csv(tmp_path / "out.csv")[0])
    assert set(re.findall(r"`(score|p_value|flagged|reason)`", page)) <= columns
    assert (tmp_path / "report.html").is_file()
