"""A data set has classes 0..C-1, each with one name, and something to test on."""

import pytest

from engine import DatasetBase, Datum


@pytest.fixture
def items():
    """14 items; the label is the index modulo 3."""
    return [Datum(f"{i}.png", i % 3, classname=f"name {i % 3}") for i in range(14)]


def test_classes_of_a_data_set(items):
    dataset = DatasetBase(train_x=items[3:], val=items[:2], test=items[:5])
    assert dataset.num_classes == 3
    assert dataset.classnames == ["name 0", "name 1", "name 2"]
    assert dataset.lab2cname == {0: "name 0", 1: "name 1", 2: "name 2"}
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (11, 2, 5)


def test_a_data_set_that_is_only_tested_on(items):
    dataset = DatasetBase(test=items)
    assert (dataset.train_x, dataset.val, dataset.num_classes) == ([], [], 3)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([(0, "a"), (2, "c")], [(0, "a")], "they must be 0 to 1. Number the classes from 0 without gaps"),
        ([(-1, "a"), (0, "c")], [(0, "c")], "-1 among them"),
        (
            [(0, "a"), (1, "b")],
            [(2, "c")],
            r"a.jpg has label 2 \(c\); the training items have 0 to 1. Add training items",
        ),
        ([(0, "a"), (1, "b")], [(1, "x")], "calls class 1 'x', others call it 'b'. Give each label one name"),
        ([(0, "a")], [], "DatasetBase.test is empty"),
    ],
)
def test_wrong_labels_are_refused(train, test, message):
    def data(pairs):
        return [Datum("a.jpg", label, classname=name) for label, name in pairs]

    with pytest.raises(ValueError, match=message):
        DatasetBase(data(train), test=data(test))
