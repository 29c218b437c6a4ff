"""report.py --run: what a page shows is what other libraries and formulas make of the same rows."""

import base64
import io
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, recall_score
from torchmetrics.functional.classification import multiclass_calibration_error

import train
from engine.log import close_logging
from report import main
from reports.of_run.losses import read_losses
from tests.reports.of_run.html_page import Page
from tests.reports.of_run.made_up_run import random_rows, write_run
from tests.support.tiny_run import run_train, tiny_cfg


@pytest.fixture
def make(tmp_path, call):
    """Makes the page of a run with these rows; returns it as it is read."""

    def make(rows, **results):
        write_run(tmp_path / "run", rows, **results)
        out = tmp_path / "page.html"
        code, said, err = call(main, "--run", tmp_path / "run", "--format", "html", "--out", out)
        assert (code, said, err) == (0, f"Written: {out} (images: {len(rows):,})\n", "")
        return Page(out.read_text(encoding="utf-8"))

    return make


def cells(page, table, n_columns):
    """The body of a table, row by row."""
    found = page.find(table, "tbody")
    return [found[i : i + n_columns] for i in range(0, len(found), n_columns)]


def test_bars_are_the_recalls_of_scikit_learn_worst_first(make):
    rows = random_rows(40, 900)
    page = make(rows)
    _, labels, predictions, *_ = zip(*rows)
    names = sorted(set(labels))
    recalls = dict(zip(names, 100 * recall_score(labels, predictions, labels=names, average=None)))
    shown = page.find("section#classes", "span.name")
    values = [float(text.rstrip("%")) for text in page.find("section#classes", "b")]
    assert sorted(shown) == names and values == sorted(values)
    assert values == pytest.approx([recalls[name] for name in shown], abs=0.051)
    assert len(page.find("section#classes", "details", "span.name")) == 10  # the worst 30 are open


def test_confusions_are_those_of_scikit_learn(make):
    rows = random_rows(12, 400)
    page = make(rows)
    _, labels, predictions, *_ = zip(*rows)
    names = sorted(set(labels))
    counts = confusion_matrix(labels, predictions, labels=names)
    titles = [text for path, text in page.texts if "rect." in path]
    squares = [x for tag, x in page.tags if tag == "rect" and x.get("class") in ("right", "wrong")]
    x, y = (sorted({float(square[key]) for square in squares}) for key in ("x", "y"))
    found = {(y.index(float(a["y"])), x.index(float(a["x"]))): text for a, text in zip(squares, titles, strict=True)}
    assert found == {
        (i, j): f"{names[i]}: {counts[i, j]} of {counts[i].sum()} images are answered {names[j]}"
        for i, j in zip(*counts.nonzero())
    }
    pairs = [(true, taken, int(n.split()[0])) for true, taken, n in cells(page, "table.pairs", 3)]
    np.fill_diagonal(counts, 0)
    assert [n for *_, n in pairs] == sorted(counts[counts > 0], reverse=True)[:20]
    assert all(counts[names.index(true), names.index(taken)] == n for true, taken, n in pairs)


def test_calibration_is_that_of_the_formula_and_of_torchmetrics(make):
    n_classes, rows = 5, random_rows(5, 300)
    page = make(rows, ece=None)
    p, is_right = (np.array(column) for column in zip(*[(float(row[3]), row[1] == row[2]) for row in rows]))
    edges = np.arange(16) / 15
    for (name, *shown), low, high in zip(cells_of_bins(page), edges[:-1], edges[1:], strict=True):
        inside = (p > low) & (p <= high)
        assert name == f"{low:.3f} to {high:.3f}" and shown[0] == f"{inside.sum()}"
        if inside.any():
            assert shown[1:] == [f"{100 * p[inside].mean():.1f}%", f"{100 * is_right[inside].mean():.1f}%"]
    labels, best = (torch.tensor([int(row[i][-4:]) for row in rows]) for i in (1, 2))
    left = (1 - torch.tensor(p))[:, None] / (n_classes - 1)
    probabilities = left.repeat(1, n_classes).scatter(1, best[:, None], torch.tensor(p)[:, None])
    error = 100 * multiclass_calibration_error(probabilities, labels, num_classes=n_classes, n_bins=15)
    [about] = page.find("section#calibration", "p.about")
    assert f"{100 * p.mean():.1f}% sure and {100 * is_right.mean():.1f}% right" in about
    assert f"calibration error {error:.2f}%" in about


def cells_of_bins(page):
    """Rows of the table of bins: two numbers where no image is inside, else four."""
    rows = []
    for text in page.find("table.bins", "tbody"):
        rows += [[text]] if " to " in text else []
        rows[-1] += [] if " to " in text else [text]
    return rows


def test_galleries(make, tmp_path):
    """Mistakes by probability, then images whose two best classes are close; each inlined, small, or named."""
    Image.new("RGB", (800, 400), "red").save(tmp_path / "wide.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    rows = [
        ["wide.png", "cat", "dog", "0.900000", "cat", "0.100000", 2],
        ["broken.jpg", "cat", "dog", "0.990000", "fox", "0.005000", 3],
        ["gone.jpg", "dog", "dog", "0.400000", "cat", "0.399000", 1],
        ["wide.png", "fox", "fox", "0.700000", "cat", "0.200000", 1],
    ]
    page = make(rows, root=tmp_path)
    mistakes, unsure = ("section#mistakes", "section#unsure")
    assert page.find(mistakes, "b.down") == ["dog 99.0%", "dog 90.0%"]
    assert page.find(mistakes, "div.says", "bdi") == [] and page.find(mistakes, "bdi") == ["broken.jpg", "wide.png"]
    assert [x for x in page.find(mistakes, "div.says") if "true" in x] == ["true: cat, rank 3", "true: cat 10.0%"]
    assert page.find(unsure, "bdi") == ["gone.jpg", "wide.png", "wide.png", "broken.jpg"]
    assert "The image is gone." in page.find(unsure, "div.absent")
    assert "does not decode" in page.find(mistakes, "div.absent")[0]
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3
    data = base64.b64decode(images[0].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (160, 80))
        assert np.abs(np.asarray(image)[40, 80].astype(int) - (255, 0, 0)).max() < 6


def test_measures_warnings_and_what_is_not_there(make):
    page = make(
        random_rows(3, 30), ece=12.345, nll=0.4567, top5_accuracy=None, temperature=None, warnings=["Only 3 classes."]
    )
    measures = dict(zip(page.find("dl.measures", "dt"), page.find("dl.measures", "dd")))
    assert measures["Calibration error"] == "12.35%" and measures["Negative log-likelihood"] == "0.457"
    assert not {"Top-5 accuracy", "Temperature"} & set(measures)
    assert page.find("ul.warnings") == ["Only 3 classes."]
    assert page.find("section#loss", "p.about")[0].startswith("Training loss")


def test_the_page_needs_no_other_file_and_no_script(make):
    page = make(random_rows(5, 60))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    addresses = [value for tag, x in page.tags for key, value in x.items() if key in ("src", "href", "xlink:href")]
    assert all(address.startswith(("#", "data:image/")) for address in addresses)
    assert all("@import" not in text and "url(" not in text for text in page.find("style"))


def test_a_thousand_classes_are_a_small_page(make, tmp_path):
    page = make(random_rows(1000, 3000))
    assert len(page.find("section#classes", "span.name")) == 1000
    assert not page.find("rect.right", "title") and "this run has 1,000" in page.find("section#confusion", "p.about")[0]
    assert len(cells(page, "table.pairs", 3)) == 20
    assert (tmp_path / "page.html").stat().st_size < 2e6


def test_a_test_has_no_loss_curve(make):
    for source, said in (("Folder", "See the training's folder"), (None, "Nothing was trained")):
        page = make(random_rows(3, 30), log="=> result\n", source=source)
        assert said in page.find("section#loss", "p.about")[0]


@pytest.mark.parametrize(
    "line",
    ["epoch [{}/9] batch [5/9] time 1.0 (1.0) loss {} ({}) lr 1e-3", "epoch [{}/9][5/9]\ttime 1 (1)\tloss {} ({})\tlr"],
)
def test_losses_are_each_epochs_last_mean_after_a_resume_too(tmp_path, line):
    steps = [(1, 5, 3.0), (1, 5, 2.5), (2, 9, 2.0), (3, 9, 1.9), "Resume after epoch 1", (2, 7, 1.5), (10, 1, 0.25)]
    lines = [step if isinstance(step, str) else line.format(*step) for step in steps]
    (tmp_path / "log.txt").write_text("\n".join([*lines, "epoch [4/9] batch [5/9] loss nan (nan)"]))
    assert read_losses(tmp_path) == {1: 2.5, 2: 1.5, 3: 1.9, 10: 0.25}


def test_a_run_without_predictions_gets_a_page_whose_command_makes_them(tiny_files, tmp_path, call):
    pairs = ("TEST.SAVE_PREDICTIONS", False, "TEST.NO_TEST", True)
    run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", *pairs))
    code, text, err = call(main, "--run", tmp_path / "run", "--format", "html")
    assert (code, err) == (0, "")
    page = Page(text)
    [command] = page.find("section#images", "code")
    assert page.find("section#measures", "code") == [command] and page.find("section#loss", "title") == []
    try:
        assert train.main(shlex.split(command)[2:]) == 0
    finally:
        close_logging()
    code, text, err = call(main, "--run", tmp_path / "run" / "test", "--format", "html")
    page = Page(text)
    assert (code, err) == (0, "") and len([1 for tag, _ in page.tags if tag == "img"]) >= 9  # all test images are shown
