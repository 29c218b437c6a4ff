"""The items on which hyper-parameters are chosen: the few-shot val items, else held-out training items."""

import random

import pytest

from datasets.base import FewShotDataset, draw_few_shots
from datasets.splits.few_shot import draw_held_out
from engine import DatasetBase, Datum, get_cfg_default

SIZES = {"train": (30, 17, 5, 2, 1, 9), "val": (8, 3, 0, 5, 5, 5), "test": (2, 2, 2, 2, 2, 2)}


def make_items(split):
    items = [
        Datum(f"{split}/{label}/{i}.jpg", label, classname=f"class {label}")
        for label, size in enumerate(SIZES[split])
        for i in range(size)
    ]
    random.Random(5).shuffle(items)
    return items


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Builds a data set with the sizes above whose image files need not be there."""

    def build(*, shots, seed=1, subset="all", without=(), val_is_test=False, present=True, selection=None):
        class Toy(FewShotDataset):
            def load_items(self, cfg):
                return tuple([] if split in without else make_items(split) for split in SIZES)

            @classmethod
            def remedy(cls, root):
                return "Draw them."

        Toy.val_is_test = val_is_test
        cfg = get_cfg_default()
        cfg.DATASET.ROOT = str(tmp_path)
        cfg.DATASET.SELECTION = selection or cfg.DATASET.SELECTION
        cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.SEED = shots, subset, seed
        if present:
            monkeypatch.setattr("datasets.verify.copy.find_unusable", lambda *splits: ([], []))
        return Toy(cfg)

    return build


def naive_held_out(train, drawn, shots, seed):
    """Class by class, in the order in which classes first appear."""
    rng, chosen, seen = random.Random("held out, " + str(seed)), [], set()
    for first in train:
        if first.label in seen:
            continue
        seen.add(first.label)
        own = [item for item in train if item.label == first.label]
        free = [item for item in own if item not in drawn]
        wanted = {1: 1, 2: 2}.get(shots, 4)
        if free:
            chosen += rng.sample(free, wanted if len(free) > wanted else len(free))
        else:
            chosen += rng.sample(own, wanted if len(own) // 2 > wanted else len(own) // 2)
    return chosen


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16, -1])
@pytest.mark.parametrize("seed", [1, 2])
def test_held_out_items_are_drawn_class_by_class(make, shots, seed):
    train = make_items("train")
    drawn, _ = draw_few_shots(train, [], shots=shots, seed=seed)
    held_out = draw_held_out(train, drawn, shots=shots, seed=seed)
    assert held_out == naive_held_out(train, drawn, shots, seed)
    assert len({item.impath for item in held_out}) == len(held_out)
    dataset = make(shots=shots, seed=seed, without=("val",))
    assert (dataset.train_x, dataset.val, dataset.selection) == (drawn, [], held_out)


def test_held_out_items_by_hand():
    """16 shots of 30, 17, 5, 2, 1 and 9: undrawn ones where there are any, else up to half of the class."""
    train = make_items("train")
    drawn, _ = draw_few_shots(train, [], shots=16, seed=1)
    held_out = draw_held_out(train, drawn, shots=16, seed=1)
    assert [sum(item.label == label for item in held_out) for label in range(6)] == [4, 1, 2, 1, 0, 4]
    assert {item.label for item in held_out if item in drawn} == {2, 3, 5}
    everything = draw_held_out(train, train, shots=-1, seed=1)
    assert [sum(item.label == label for item in everything) for label in range(6)] == [4, 4, 2, 1, 0, 4]
    assert draw_held_out(train, drawn, shots=16, seed=2) != held_out


@pytest.mark.parametrize("shots", [1, 16, -1])
def test_where_there_are_val_items_they_are_the_selection(make, shots):
    dataset = make(shots=shots)
    train, val = draw_few_shots(make_items("train"), make_items("val"), shots=shots, seed=1)
    assert (dataset.train_x, dataset.val) == (train, val)
    assert dataset.selection == val


def test_a_val_set_that_is_the_test_set_is_whole_and_chooses_nothing(make):
    dataset = make(shots=2, without=("val",), val_is_test=True)
    train, _ = draw_few_shots(make_items("train"), make_items("val"), shots=2, seed=1)
    assert dataset.train_x == train  # as where val is drawn
    assert dataset.val == dataset.test == make_items("test")
    assert dataset.selection == naive_held_out(make_items("train"), train, 2, 1)


def test_all_val_items_or_the_test_items_where_the_config_says_so(make):
    val, test = make_items("val"), make_items("test")
    drawn = make(shots=2)
    for selection, items in (("full_val", val), ("test", test)):
        dataset = make(shots=2, selection=selection)
        assert dataset.selection == items
        assert (dataset.train_x, dataset.val, dataset.test) == (drawn.train_x, drawn.val, test)
    base = make(shots=2, selection="full_val", subset="base")
    assert base.selection == [item for item in val if item.label < 3]
    assert make(shots=2, without=("val",), selection="full_val").selection == []
    assert make(shots=2, without=("val",), val_is_test=True, selection="full_val").selection == test


@pytest.mark.parametrize(("subset", "labels"), [("base", (0, 1, 2)), ("new", (3, 4, 5))])
def test_base_and_new_classes_are_taken_from_what_was_drawn(make, subset, labels):
    whole = make(shots=2, without=("val",), val_is_test=True)
    half = make(shots=2, without=("val",), val_is_test=True, subset=subset)
    for split in ("train_x", "val", "test", "selection"):
        expected = [(x.impath, x.label - labels[0]) for x in getattr(whole, split) if x.label in labels]
        assert [(x.impath, x.label) for x in getattr(half, split)] == expected


def test_missing_images_of_the_selection_are_named(make, monkeypatch):
    gone = make(shots=2, without=("val",)).selection[0].impath
    monkeypatch.setattr(
        "datasets.verify.copy.find_unusable",
        lambda *splits: ([x.impath for items in splits for x in items if x.impath == gone], []),
    )
    with pytest.raises(FileNotFoundError, match=rf"Toy lacks 1 image\(s\) in .*: {gone}.* Draw them."):
        make(shots=2, without=("val",), present=False)


def test_a_data_set_that_is_only_tested_on_has_no_selection(make):
    dataset = make(shots=2, without=("train", "val"))
    assert (dataset.train_x, dataset.val, dataset.selection) == ([], [], [])
    assert dataset.source_labels is None


def test_any_data_set_has_a_selection():
    items = make_items("test")
    assert DatasetBase(items, val=items[:3], test=items).selection == items[:3]
    assert DatasetBase(items, val=items[:3], test=items, selection=items[5:]).selection == items[5:]
    with pytest.raises(ValueError, match="DatasetBase.selection's item a.jpg has label 9"):
        DatasetBase(items, test=items, selection=[Datum("a.jpg", 9)])
