"""predict.py: which files it answers, in which form, and what it says of those that it cannot read."""

import csv
import io
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import predict
from inference.classifier import Classifier
from tests.support.script_calls import ROOT
from tests.support.tiny_run import CLASSES, run_train, tiny_cfg


@pytest.fixture(scope="module")
def run(tiny_files, tmp_path_factory):
    """A finished run of CoOp, and what its results say."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    return folder, run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], folder, "FEATURES.DIR", ""))


@pytest.fixture
def test_images(tiny_files):
    return tiny_files[0] / "test"


def typed(text):
    """Standard input that holds a text."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")


def test_a_folder_of_class_folders_gives_the_runs_accuracy(run, test_images, capsys):
    folder, results = run

    assert predict.main([str(folder), str(test_images), "--format", "csv", "--topk", "2"]) == 0

    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["path"] for row in rows] == [str(path) for path in sorted(test_images.glob("*/*.png"))]
    assert sum(row["prediction"] == row["true"] for row in rows) == results["correct"]
    assert f"accuracy: {results['accuracy']:.2f}% of 9 images" in said.err
    best = Classifier.from_run(folder).topk([row["path"] for row in rows], k=2)
    for row, ranked in zip(rows, best):
        assert [row["class_1"], row["class_2"]] == [name for name, _ in ranked]
        assert float(row["probability_2"]) == pytest.approx(ranked[1][1], abs=1e-4)


def test_the_accuracy_says_how_many_answers_are_unknown(run, test_images, capsys):
    predict.main([str(run[0]), str(test_images), "--format", "csv", "--threshold", "1"])
    said = capsys.readouterr()
    n_unknown = sum(row["prediction"] == "unknown" for row in csv.DictReader(io.StringIO(said.out)))
    assert n_unknown and f"of 9 images; {n_unknown} of them are unknown, but count by their best class" in said.err


def test_json_holds_the_classes_of_each_image(run, test_images, tmp_path):
    image, out = test_images / "face/0.png", tmp_path / "answers.json"

    assert predict.main([str(run[0]), str(image), "--format", "json", "--out", str(out), "--topk", "9"]) == 0

    (answer,) = json.loads(out.read_text())
    assert answer["path"] == str(image) and answer["prediction"] == answer["classes"][0]["name"]
    assert sorted(entry["name"] for entry in answer["classes"]) == sorted(CLASSES)
    assert sum(entry["probability"] for entry in answer["classes"]) == pytest.approx(1, abs=1e-5)


def test_patterns_and_a_list_on_standard_input_name_files(run, test_images, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", typed(f"{test_images}/face/1.png\n\n{test_images}/face/0.png\n"))
    predict.main([str(run[0]), "-", "--format", "csv"])
    predict.main([str(run[0]), f"{test_images}/*/2.png", "--format", "csv"])

    rows = [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if not line.startswith("path,")]
    assert rows == [f"{test_images}/{name}.png" for name in ("face/1", "face/0", *(f"{c}/2" for c in CLASSES))]


def test_below_the_threshold_the_answer_is_unknown(run, test_images, capsys):
    predict.main([str(run[0]), str(test_images / "face"), "--threshold", "1", "--format", "csv"])

    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 3 and all(row["prediction"] == "unknown" and row["class_1"] in CLASSES for row in rows)


def test_other_class_names_come_from_a_file(run, test_images, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\ufefftea pot\nface\n", encoding="utf-8")
    predict.main([str(run[0]), str(test_images / "face/0.png"), "--classnames", str(tmp_path / "names.txt")])

    out = capsys.readouterr().out
    assert "tea pot" in out and "face " in out and "leopard" not in out


def test_a_bad_image_is_named_and_the_others_are_answered(run, test_images, tmp_path, capsys):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((test_images / "face/0.png").read_bytes()[:200])
    (tmp_path / "good.png").write_bytes((test_images / "face/0.png").read_bytes())
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")

    assert predict.main([str(run[0]), str(tmp_path), "--format", "json"]) == 1

    said = capsys.readouterr()
    answers = {entry["path"]: entry for entry in json.loads(said.out)}
    assert {Path(path).stem for path in answers if "error" in answers[path]} == {"empty", "cut", "bomb"}
    assert answers[f"{tmp_path}/good.png"]["prediction"] in CLASSES
    assert said.err.count("does not decode") == 2 and "bomb.png has too many pixels" in said.err
    assert "datasets.check" not in said.err  # there is no data set


def test_images_are_found_as_training_finds_them(run, test_images, tmp_path, capsys):
    image = (test_images / "face/0.png").read_bytes()
    for name in ("a", "b.jfif", "c.PNG", "._d.png", ".e.png", "__MACOSX/f.png", "g/h"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "linked").symlink_to(test_images / "face")

    assert predict.main([str(run[0]), str(tmp_path), "--format", "csv"]) == 0

    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = [os.path.relpath(row["path"], tmp_path) for row in rows]
    assert sorted(found) == ["a", "b.jfif", "c.PNG", "g/h", *(f"linked/{i}.png" for i in range(3))]


def test_a_picture_of_a_kind_that_is_not_read_is_named(run, test_images, tmp_path, capsys):
    shutil.copy(test_images / "face/0.png", tmp_path)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    shutil.copy(test_images / "face/0.png", tmp_path / "IMG_2.NEF")  # begins with an image, its thumbnail

    assert predict.main([str(run[0]), str(tmp_path), str(tmp_path / "IMG_2.NEF"), "--topk", "1"]) == 1

    said = capsys.readouterr()
    assert said.out.count("\n") == 4 and said.out.count("IMG_2.NEF  cannot be read") == 2
    assert "IMG_1.HEIC does not decode" in said.err and "IMG_2.NEF is a camera's raw file" in said.err


def test_an_empty_list_is_an_error(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", typed("\n"))
    assert predict.main([str(run[0]), "-"]) == 1
    assert "Error: The list of images is empty" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_no_answer(tiny_files, test_images, tmp_path, capsys, caplog):
    cache, pairs = tmp_path / "cache", ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
    run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", "FEATURES.DIR", str(cache), *pairs))
    shutil.rmtree(cache)
    cache.write_text("a file")
    capsys.readouterr(), caplog.clear()

    assert predict.main([str(tmp_path / "run"), *[str(test_images)] * 3, "--format", "csv"]) == 0

    assert len(capsys.readouterr().out.splitlines()) == 28
    assert caplog.text.count("cannot be written") == 1


def test_a_warning_is_printed_once(run, test_images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own
    (tmp_path / "names.txt").write_text("tea pot\ntea_pot\n")
    predict.main([str(run[0]), str(test_images), "--classnames", str(tmp_path / "names.txt")])
    assert capsys.readouterr().err.count("Warning: Some classes make the same prompt") == 1


def test_an_image_named_like_a_class_is_in_no_class_folder(run, test_images, tmp_path, capsys):
    shutil.copy(test_images / "face/0.png", tmp_path / "leopard")

    assert predict.main([str(run[0]), str(tmp_path), "--format", "csv"]) == 0
    said = capsys.readouterr()
    assert "accuracy" not in said.err and list(csv.DictReader(io.StringIO(said.out)))[0]["true"] == ""


def test_a_missing_file_of_a_list_is_named_and_the_others_are_answered(run, test_images, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", typed(f"nowhere.png\n{test_images}/face/0.png\n"))

    assert predict.main([str(run[0]), "-", "--format", "csv"]) == 1

    said = capsys.readouterr()
    missing, whole = csv.DictReader(io.StringIO(said.out))
    assert "nowhere.png is missing" in missing["error"] and whole["prediction"] in CLASSES
    assert "split" not in said.err


def test_the_folder_of_out_is_made(run, test_images, tmp_path):
    out = tmp_path / "new/answers.csv"
    assert predict.main([str(run[0]), str(test_images), "--format", "csv", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 10


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such names")
def test_a_file_name_that_is_no_utf8_is_answered(run, test_images, tmp_path):
    shutil.copy(test_images / "face/0.png", os.fsencode(tmp_path / "caf") + b"\xe9.png")
    for kind in ("table", "csv", "json"):
        out = tmp_path / f"answers.{kind}"
        assert predict.main([str(run[0]), str(tmp_path), "--format", kind, "--out", str(out)]) == 0
        assert "caf\\udce9.png" in out.read_text().replace("\\\\", "\\")


def program(run, *words):
    """Starts predict.py in a process of its own."""
    command = [sys.executable, str(ROOT / "predict.py"), str(run[0]), *map(str, words), "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_pipe_that_is_closed_ends_it_without_a_word(run, test_images):
    process = program(run, *[test_images] * 120, "--no-cache")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141  # as of a program that SIGPIPE has ended


def test_ctrl_c_says_how_far_it_came(run, test_images, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **options):
        yield from itertools.islice(real(*args, **options), 2)
        raise KeyboardInterrupt

    real = predict.predict
    monkeypatch.setattr(predict, "predict", interrupted)
    assert predict.main([str(run[0]), str(test_images), "--format", "json", "--out", str(tmp_path / "out")]) == 130
    assert "Interrupted: 2 of 9 images are answered" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out").read_text())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "{folder}/nothing*"], "is neither a file nor a folder, and matches none"),
        (["{folder}", "{folder}/tensorboard"], "holds no images"),
        (["{folder}/tensorboard", "x.png"], "is no run's folder"),
        (["{folder}", "{image}", "--out", "/proc/answers.csv"], "answers.csv"),
        (["{folder}", "{image}", "--out", "{image}/answers.csv"], "answers.csv; it must be a file in a folder"),
        (["{folder}", "{image}", "--out", "{folder}"], "it must be a file in a folder"),
        (["{folder}", "{image}", "--classnames", "{image}"], "0.png"),
        (["{folder}", "{image}", "--classnames", "nowhere/names.txt"], "names.txt does not exist"),
        (["{folder}", "{image}", "--epoch", "7"], "Saved epochs: 2"),
    ],
)
def test_bad_input_is_one_error(run, test_images, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(predict, "write_answers", lambda *_: pytest.fail("the images are classified first"))
    words = [word.format(folder=run[0], image=test_images / "face/0.png") for word in arguments]

    assert predict.main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and message in said
