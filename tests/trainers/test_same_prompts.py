"""Classes that a method cannot tell apart, by their names or with its backbone, are named before it begins."""

import io
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from clip.clip import tokenizer
from datasets.folder import Folder
from datasets.imagenet_files import ImageNetFiles
from datasets.splits.imagenet_names import clip_names
from engine import DATASET_REGISTRY
from engine.evaluation.evaluator import Classification
from tests.support.small_copies import write_files
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import own_warnings, run_train, tiny_cfg

ZERO_SHOT = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
ONE_EPOCH = ("OPTIM.MAX_EPOCH", 1)
COCOOP = ("TRAINER.NAME", "CoCoOp", "TRAINER.COCOOP.PREC", "fp32", *ONE_EPOCH)
SAME_PROMPT, SAME_FEATURE = "Some classes make the same prompt", "Some classes have nearly the same text feature"
TWINS = (
    "Some classes make the same prompt as an earlier one (1 of 3): 'cat' (label 1) as 'Cat' (label 0). Unless the "
    "method learns something for each class, they are never answered. Rename one of each pair, or merge the two."
)


def png():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def warn(tiny_files, tmp_path, monkeypatch):
    """warn(folders of the classes, KEY, VALUE, ...): what the results of a run on them warn of, but for chance."""
    monkeypatch.setattr(Classification, "chance_warning", lambda self: "")

    def run(names, *pairs, clip=tiny_files[1]["vit"]):
        folder = tmp_path / "data"
        write_files(folder, {f"{split}/{name}/a.png": png() for split in ("train", "val", "test") for name in names})
        said = own_warnings(run_train(tiny_cfg(folder, clip, tmp_path / "run", *pairs)))
        log = (tmp_path / "run" / "log.txt").read_text()
        assert all(log.index(f"Warning: {text}\n") < log.index("Evaluate on") for text in said)
        return said

    return run


@pytest.fixture(scope="module")
def blind_clip(tmp_path_factory):
    """A small CLIP that reads the tokens of "cat" and of "dog" in the same way."""
    weights = golden_state_dict("vit")
    (cat,), (dog,) = map(tokenizer().encode, ("cat", "dog"))
    weights["token_embedding.weight"][dog] = weights["token_embedding.weight"][cat]
    path = tmp_path_factory.mktemp("clip") / "blind.pt"
    torch.save(weights, path)
    return path


@pytest.mark.parametrize("pairs", [ZERO_SHOT, ONE_EPOCH, COCOOP], ids=["zero-shot", "CoOp", "CoCoOp"])
def test_names_that_differ_in_capitals_are_one_prompt_for_every_method(pairs, warn):
    assert warn(["Cat", "cat", "dog"], *pairs) == [TWINS]


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (["apple pie", "apple_pie", "dog"], "'apple_pie' (label 1) as 'apple pie' (label 0)"),
        (["cafe\N{COMBINING ACUTE ACCENT}", "caf\xe9", "dog"], r"'caf\xe9' (label 1) as 'cafe\u0301' (label 0)"),
    ],
    ids=["underscore", "Unicode forms"],
)
def test_names_that_differ_in_what_a_prompt_does_not_show(names, pair, warn):
    [said] = [text for text in warn(names, *ZERO_SHOT) if SAME_PROMPT in text]
    assert f"({len(names) - 2} of 3): {pair}. " in said


def test_a_names_file_that_gives_two_folders_one_name(warn, tmp_path):
    (tmp_path / "names.txt").write_text("beagle green dog\nsetter green dog\nsedan blue car\n")
    [said] = warn(["beagle", "sedan", "setter"], *ZERO_SHOT, "DATASET.CLASSNAMES", str(tmp_path / "names.txt"))
    assert "(1 of 3): 'green dog' (label 2) as 'green dog' (label 0). " in said


def test_of_many_pairs_the_first_are_named(warn):
    names = [name for word in ("ant", "bee", "cow", "doe") for name in (word.upper(), word)]
    [said] = warn(sorted(names), *ZERO_SHOT)
    assert "(4 of 8): 'ant' (label 4) as 'ANT' (label 0)" in said
    assert "'cow' (label 6) as 'COW' (label 2) and 1 more. Unless" in said


def test_names_that_differ_are_no_twins(warn):
    assert warn(["cat", "cats", "dog", "wild cat"], *ZERO_SHOT) == []


def test_a_method_that_does_not_read_the_names_has_no_twins(warn):
    probe = ("TRAINER.NAME", "LinearProbe", "TRAINER.LINEAR_PROBE.PREC", "fp32")
    assert not [said for said in warn(["Cat", "cat", "dog"], *probe) if SAME_PROMPT in said]


def test_names_that_the_data_sets_own_list_repeats_are_logged_and_no_warning(warn, register, tmp_path):
    class Repeating(Folder):
        repeated_names = frozenset({"missile"})

    register(DATASET_REGISTRY, Repeating)
    (tmp_path / "names.txt").write_text("n04008634 missile\nn03773504 missile\nn01440764 tench\n")
    pairs = ("DATASET.NAME", "Repeating", "DATASET.CLASSNAMES", str(tmp_path / "names.txt"))
    assert warn(["n01440764", "n03773504", "n04008634"], *ZERO_SHOT, *pairs) == []
    said = "own list repeats class names: 'missile' (label 2) as 'missile' (label 1)\n"
    assert said in (tmp_path / "run" / "log.txt").read_text()


def test_imagenets_own_list_repeats_two_names():
    counts = Counter(clip_names())
    assert ImageNetFiles.repeated_names == {name for name in counts if counts[name] > 1}


@pytest.mark.parametrize("pairs", [ZERO_SHOT, ONE_EPOCH, COCOOP], ids=["zero-shot", "CoOp", "CoCoOp"])
def test_words_that_the_backbone_takes_for_one(pairs, warn, blind_clip):
    [said] = warn(["cat", "dog", "plane"], *pairs, clip=blind_clip)
    assert said == (
        f"{SAME_FEATURE} with {blind_clip} and are hardly told apart (1 of 3 pairs, cosine above 0.9999), such as "
        "'dog' (label 1) as 'cat' (label 0). Give them names that differ more, or take another backbone, such as "
        "--backbone ViT-B/16."
    )


def test_twins_are_not_told_twice(warn, blind_clip):
    said = warn(["Cat", "cat", "dog", "plane"], *ZERO_SHOT, clip=blind_clip)
    assert [text.partition(" (")[0] for text in sorted(said)][0].startswith(SAME_FEATURE) and len(said) == 2
    assert "(1 of 3 pairs, " in sorted(said)[0] and "(1 of 4): 'cat' (label 1)" in sorted(said)[1]


def test_the_small_clip_of_shapes_knows_no_words_of_photographs(warn):
    shapes = ("MODEL.BACKBONE.NAME", "ViT-T/8-shapes", "INPUT.SIZE", (48, 48))
    [said] = warn(["beagle", "sedan", "setter"], *ZERO_SHOT, *shapes)
    assert "(3 of 3 pairs, " in said
    assert said.endswith("knows the words of `shapes` alone: take one of OpenAI's, such as --backbone ViT-B/16.")
