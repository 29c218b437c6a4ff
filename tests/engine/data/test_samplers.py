"""The order of the items: each once, by seed and epoch, or a few images of a few classes."""

import pytest

from engine import Datum
from engine.data.samplers import RandomClassSampler, build_sampler, mix_seeds

N_ITEMS = 14


@pytest.fixture
def items():
    """14 items; the label is the index modulo 3."""
    return [Datum(f"{i}.png", i % 3, classname=f"name {i % 3}") for i in range(N_ITEMS)]


def test_mixed_seeds_differ_and_fit_torch():
    seeds = {mix_seeds(seed, epoch, index) for seed in range(10) for epoch in range(10) for index in range(100)}
    assert len(seeds) == 10_000
    assert mix_seeds(1, 12) != mix_seeds(11, 2) != mix_seeds(2, 11)
    assert all(0 <= seed < 2**63 for seed in seeds)


def draw(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_random_sampler_visits_each_item_once_in_an_order_of_seed_and_epoch(items):
    sampler, other = build_sampler("RandomSampler", items, seed=1), build_sampler("RandomSampler", items, seed=2)
    first, second = draw(sampler, 0), draw(sampler, 1)
    assert sorted(first) == sorted(second) == list(range(N_ITEMS))
    assert first != second
    assert draw(sampler, 0) == first != draw(other, 0)


def test_sequential_sampler_keeps_the_order(items):
    assert draw(build_sampler("SequentialSampler", items), 3) == list(range(N_ITEMS))


def test_random_class_sampler_fills_batches_with_a_few_images_of_a_few_classes():
    labels = [0] * 7 + [1] * 4 + [2] * 1 + [3] * 5
    items = [Datum(str(i), label) for i, label in enumerate(labels)]
    sampler = RandomClassSampler(items, 1, batch_size=4, n_ins=2)
    epochs = [draw(sampler, epoch) for epoch in range(5)]
    for indices in epochs:
        assert len(indices) == len(sampler)
        for start in range(0, len(indices), 4):
            drawn = [labels[i] for i in indices[start : start + 4]]
            assert sorted(drawn.count(label) for label in set(drawn)) == [2, 2]
        often = [i for i in indices if labels[i] != 2]  # only the class of one image repeats it
        assert len(often) == len(set(often))
    # Groups of two: 3, 2, 1 and 2; with two classes in a batch all eight are used.
    assert len(sampler) == 16
    assert len({tuple(indices) for indices in epochs}) == 5
    assert draw(sampler, 2) == epochs[2]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "Sampler",
            {},
            "The sampler is 'Sampler', expected one of: RandomSampler, .* Change DATALOADER.TRAIN_X.SAMPLER",
        ),
        ("RandomClassSampler", {"batch_size": 6, "n_ins": 4}, "BATCH_SIZE is 6; .* must be a multiple of N_INS = 4"),
        ("RandomClassSampler", {"batch_size": 8, "n_ins": 2}, "is 4 classes, but the training items have only 3"),
    ],
)
def test_samplers_that_do_not_fit_are_refused(items, name, options, message):
    with pytest.raises(ValueError, match=message):
        build_sampler(name, items, **options)
