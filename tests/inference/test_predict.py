"""predict.py: which files it answers, in which form, and what it says of those that it cannot read."""

import csv
import io
import json
import sys

import pytest

import predict
from inference.classifier import Classifier
from tests.support.tiny_run import CLASSES, run_train, tiny_cfg


@pytest.fixture(scope="module")
def run(tiny_files, tmp_path_factory):
    """A finished run of CoOp, and what its results say."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    return folder, run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], folder, "FEATURES.DIR", ""))


@pytest.fixture
def test_images(tiny_files):
    return tiny_files[0] / "test"


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


def test_json_holds_the_classes_of_each_image(run, test_images, tmp_path):
    image, out = test_images / "face/0.png", tmp_path / "answers.json"

    assert predict.main([str(run[0]), str(image), "--format", "json", "--out", str(out), "--topk", "9"]) == 0

    (answer,) = json.loads(out.read_text())
    assert answer["path"] == str(image) and answer["prediction"] == answer["classes"][0]["name"]
    assert sorted(entry["name"] for entry in answer["classes"]) == sorted(CLASSES)
    assert sum(entry["probability"] for entry in answer["classes"]) == pytest.approx(1, abs=1e-5)


def test_patterns_and_a_list_on_standard_input_name_files(run, test_images, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{test_images}/face/1.png\n\n{test_images}/face/0.png\n"))
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

    assert predict.main([str(run[0]), str(tmp_path), "--format", "json"]) == 1

    said = capsys.readouterr()
    answers = {entry["path"]: entry for entry in json.loads(said.out)}
    assert [bool(answers[f"{tmp_path}/{name}.png"].get("error")) for name in ("empty", "cut", "good")] == [
        True,
        True,
        False,
    ]
    assert answers[f"{tmp_path}/good.png"]["prediction"] in CLASSES
    assert said.err.count("does not decode") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "{folder}/nothing*"], "is neither a file nor a folder, and matches none"),
        (["{folder}", "{folder}/tensorboard"], "holds no images"),
        (["{folder}/tensorboard", "x.png"], "is no run's folder"),
        (["{folder}", "{image}", "--out", "/proc/answers.csv"], "answers.csv"),
    ],
)
def test_bad_input_is_one_error(run, test_images, capsys, arguments, message):
    words = [word.format(folder=run[0], image=test_images / "face/0.png") for word in arguments]

    assert predict.main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and message in said
