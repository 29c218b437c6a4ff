"""A result is done only if what it was made from is what is there now: a test is made anew, a training refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from engine.files import write_atomically
from engine.run.folder import read_results
from tests.support.tiny_run import CLASSES, N_ITEMS, train_flags, write_clip, write_images

LONG_AGO_NS = 1_600_000_000 * 10**9
PAIRS = ("DATASET.CLASSNAMES", "names.txt", "USE_CUDA", "False", "FEATURES.DIR", "cache", "TEST.ON_BAD_IMAGE", "skip")
PAIRS += ("DATALOADER.NUM_WORKERS", "0", "OPTIM.MAX_EPOCH", "1")
TESTS = {  # run: what makes it a test
    "zeroshot": ("--eval-only", "TRAINER.NAME", "ZeroshotCLIP"),
    "evaluation": ("--eval-only", "--model-dir=coop", "--load-epoch=1"),
}


def words(run, *more, output_dir=""):
    """train.py's words for a run in this folder."""
    flags = train_flags(Path("."), Path("data"), Path("clip.pt"))
    more = [*TESTS.get(run, ()), *more]
    given = [word for word in more if word.startswith("--")]
    pairs = [word for word in more if not word.startswith("--")]
    return [*flags, f"--output-dir={output_dir or run}", *given, *PAIRS, *pairs]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with images, weights, class names, and what three runs have left: a training and two tests."""
    folder = tmp_path_factory.mktemp("finished")
    write_images(folder / "data")
    write_clip(folder / "clip.pt")
    (folder / "names.txt").write_text("".join(f"{name} {name}\n" for name in CLASSES))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run in ("coop", *TESTS):
            assert train.main(words(run)) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(finished, tmp_path, monkeypatch):
    """A copy of that folder, in which the calls are made."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


@pytest.fixture
def call(capsys):
    """Calls train.py for a run; returns the exit code, standard output and error."""

    def call(run, *more, **options):
        code = train.main(words(run, *more, **options))
        return (code, *capsys.readouterr())

    return call


def write_image(path):
    Image.fromarray(np.random.default_rng(9).integers(0, 255, (36, 40, 3), dtype=np.uint8)).save(path)


def other_names():
    Path("names.txt").write_text(Path("names.txt").read_text().replace("leopard leopard", "leopard snow leopard"))


def another_class():
    for split in ("train", "test"):
        shutil.copytree(f"data/{split}/face", f"data/{split}/zebra")
    with open("names.txt", "a") as file:
        file.write("zebra zebra\n")


def more_images(split):
    return lambda: write_image(f"data/{split}/face/new.png")


def fewer_images(split):
    return lambda: os.remove(f"data/{split}/face/1.png")


def other_weights():
    """Of one size, whose time of change is set back."""
    status, content = os.stat("clip.pt"), torch.load("clip.pt")
    content["visual.proj"] = content["visual.proj"].flip(0)
    torch.save(content, "clip.pt")
    os.utime("clip.pt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat("clip.pt").st_size == status.st_size


def other_bytes():
    write_image("data/test/face/1.png")


def other_model():
    path = Path("coop/prompt_learner/model.pth.tar-1")
    checkpoint = torch.load(path)
    checkpoint["state_dict"]["ctx"] *= -1
    torch.save(checkpoint, path)


CHANGES = {
    "another name": (other_names, "the class names"),
    "another class": (another_class, "the class names"),
    "more test images": (more_images("test"), "the test items"),
    "fewer test images": (fewer_images("test"), "the test items"),
    "another test image of the same name": (other_bytes, "the bytes of the images tested on"),
    "other weights": (other_weights, "the weights of MODEL.BACKBONE.NAME, or the config beside them"),
}
OF_TRAINING = {
    "more training images": (more_images("train"), "the training items"),
    "fewer validation images": (fewer_images("val"), "the validation items"),
    "another model": (other_model, "the model that was tested"),
}


@pytest.mark.parametrize("run", ["coop", *TESTS])
def test_what_has_not_changed_is_done(call, run):
    before = read_results(run)
    shutil.copytree("data", "moved")  # other inodes and times, the same images
    shutil.rmtree("data")
    os.rename("moved", "data")
    assert call(run) == (0, f"Done already: {run} holds the results of this run.\n", "")
    assert read_results(run) == before


@pytest.mark.parametrize("change", [*CHANGES, *OF_TRAINING])
def test_a_training_is_refused_and_told_what_has_changed(call, change):
    before = read_results("coop")
    make, what = {**CHANGES, **OF_TRAINING}[change]
    make()
    code, _, error = call("coop")
    start = "Error: The folder coop holds this run, but what it was made from has changed since: "
    assert (code, error.startswith(f"{start}{what}. ")) == (1, True), error
    is_tests = "test" in change
    assert ("delete results.json there" in error, "begin anew in another folder" in error) == (is_tests, not is_tests)
    assert read_results("coop") == before


@pytest.mark.parametrize("change", CHANGES)
def test_a_zero_shot_test_is_made_anew(call, change):
    before = read_results("zeroshot")
    make, what = CHANGES[change]
    make()
    code, said, _ = call("zeroshot")
    line = f"What the results there were made from has changed, and they are made anew: {what}\n"
    assert (code, line in said) == (0, True), said
    call("zeroshot", output_dir="fresh")
    measured = ("accuracy", "macro_f1", "total", "correct")
    assert [read_results("zeroshot")[key] for key in measured] == [read_results("fresh")[key] for key in measured]
    assert json.loads(Path("zeroshot/results-before.json").read_text()) == before
    assert call("zeroshot")[1].startswith("Done already: ")


@pytest.mark.parametrize("change", [more_images("train"), fewer_images("val")])
def test_a_test_does_not_depend_on_what_it_does_not_read(call, change):
    change()
    for run in TESTS:
        assert call(run)[1].startswith("Done already: ")


def test_the_trained_model_is_tested_anew_where_it_is_asked_for(call):
    """As the refusal says: nothing is trained again."""
    model = Path("coop/prompt_learner/model.pth.tar-1")
    before, learned = read_results("coop"), model.read_bytes()
    more_images("test")()
    os.remove("coop/results.json")
    code, said, _ = call("coop")
    assert code == 0 and "epoch [" not in said
    assert (before["total"], read_results("coop")["total"]) == (3 * N_ITEMS["test"], 3 * N_ITEMS["test"] + 1)
    assert model.read_bytes() == learned
    call("evaluation", output_dir="fresh")
    assert read_results("coop")["correct"] == read_results("fresh")["correct"]


def test_where_nothing_was_tested_test_images_do_not_count(call):
    assert call("coop", "TEST.NO_TEST", "True", output_dir="untested")[0] == 0
    more_images("test")()
    assert call("coop", "TEST.NO_TEST", "True", output_dir="untested")[1].startswith("Done already: ")
    more_images("train")()
    assert call("coop", "TEST.NO_TEST", "True", output_dir="untested")[0] == 1


def test_a_skipped_image_that_was_mended_counts(call):
    path = Path("data/test/face/1.png")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    call("zeroshot", output_dir="skipping")
    assert call("zeroshot", output_dir="skipping")[1].startswith("Done already: ")
    path.write_bytes(whole)
    assert "images that were skipped and can be read now\n" in call("zeroshot", output_dir="skipping")[1]
    assert read_results("skipping")["correct"] == read_results("zeroshot")["correct"]


@pytest.mark.parametrize("run", ["coop", "zeroshot"])
def test_a_data_set_that_is_gone_is_named_and_the_results_stay(call, run):
    before = read_results(run)
    shutil.rmtree("data")
    code, _, error = call(run)
    assert code == 1 and error.startswith(
        f"Error: The folder {run} holds the results of this run, but its data set cannot be read, so nothing tells "
        "whether they still fit it: "
    )
    assert f"{os.getcwd()}/data" in error
    assert read_results(run) == before


def rewrite(run, change):
    """Changes what the results of a run say."""
    results = read_results(run)
    change(results)
    write_atomically(Path(run, "results.json"), lambda path: path.write_text(json.dumps(results)))


def test_results_without_provenance_are_done_and_said_to_be_unchecked(call):
    rewrite("coop", lambda results: results.pop("provenance"))
    more_images("test")()
    code, said, _ = call("coop")
    assert (code, said.splitlines()) == (
        0,
        [
            "Done already: coop holds the results of this run.",
            "They do not say what data they were made from: see that these are still the same.",
        ],
    )


def as_earlier(results):
    del results["provenance"]["listed_sha256"], results["provenance"]["images_sha256"]
    results["provenance"]["model_sha256"] = None


def test_of_an_earlier_training_what_differs_is_said(call):
    """Its digests were of the items that the run, or a plug-in, had left."""
    rewrite("coop", as_earlier)
    assert call("coop") == (0, "Done already: coop holds the results of this run.\n", "")
    more_images("test")()
    assert call("coop")[1].splitlines()[1:] == [
        "They are of an earlier version and may be of other data; what differs: the test items."
    ]


def test_an_earlier_test_of_other_items_is_made_anew(call):
    rewrite("zeroshot", as_earlier)
    assert call("zeroshot") == (0, "Done already: zeroshot holds the results of this run.\n", "")
    more_images("test")()
    assert "are made anew: the test items" in call("zeroshot")[1]


def test_a_plug_in_with_a_loader_of_its_own_is_done(call, tmp_path):
    """Its items are its own affair: what the data set lists is what is compared."""
    plugin = tmp_path / "halves.py"
    plugin.write_text(
        "from engine import TRAINER_REGISTRY\nfrom trainers.zsclip import ZeroshotCLIP\n\n"
        "@TRAINER_REGISTRY.register()\nclass Halves(ZeroshotCLIP):\n"
        "    def build_data_loader(self):\n        super().build_data_loader()\n        del self.dm.dataset.test[4:]\n"
    )
    more = (f"--plugin={plugin}", "TRAINER.NAME", "Halves")
    for said in ("* accuracy", "Done already: "):
        assert said in call("zeroshot", *more, output_dir="halves")[1]
    more_images("test")()
    assert "are made anew: the test items" in call("zeroshot", *more, output_dir="halves")[1]
