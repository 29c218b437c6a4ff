"""Items become batches: which, in which order, and what each holds."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from engine import DataManager, DatasetBase, Datum, Registry, build_transform, get_cfg_default
from engine.data import manager
from engine.data.images import DatasetWrapper
from engine.data.manager import build_data_loader, count_workers

N_CLASSES, N_ITEMS = 3, 14


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """14 noise images of 20 x 24 pixels; the label is the index modulo 3."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    made = []
    for i in range(N_ITEMS):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
        made.append(Datum(str(path), i % N_CLASSES, classname=f"name {i % N_CLASSES}"))
    return made


@pytest.fixture
def cfg():
    cfg = get_cfg_default()
    cfg.SEED = 1
    cfg.INPUT.SIZE = (16, 16)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATASET.NAME = "Noise"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
    cfg.DATALOADER.TEST.BATCH_SIZE = 4
    return cfg


@pytest.fixture
def noise(items, monkeypatch):
    """Registers a data set of these images for the time of a test."""

    class Noise(DatasetBase):
        n_train = N_ITEMS

        def __init__(self, cfg):
            super().__init__(items[: self.n_train], test=items)

    registry = Registry("data set", "")
    registry.register(Noise)
    monkeypatch.setattr("engine.data.manager.DATASET_REGISTRY", registry)
    return Noise


def test_random_class_sampler_is_refused_for_testing(cfg, items):
    cfg.DATALOADER.TEST.SAMPLER = "RandomClassSampler"
    with pytest.raises(ValueError, match="DATALOADER.TEST.SAMPLER is 'RandomClassSampler'"):
        build_data_loader(cfg, items, lambda image: 0, is_train=False)


def test_test_batches_hold_every_item_in_order_as_the_test_transform_gives_it(cfg, items, noise):
    batches = list(DataManager(cfg).test_loader)
    assert [len(batch["label"]) for batch in batches] == [4, 4, 4, 2]
    assert [path for batch in batches for path in batch["impath"]] == [item.impath for item in items]
    assert torch.cat([batch["label"] for batch in batches]).tolist() == [item.label for item in items]
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(N_ITEMS))
    assert set(batches[0]) == {"img", "label", "domain", "impath", "index"}
    assert batches[0]["img"].dtype == torch.float32 and batches[0]["label"].dtype == torch.int64
    expected = build_transform(cfg, is_train=False)(Image.open(items[5].impath).convert("RGB"))
    assert torch.equal(batches[1]["img"][1], expected)
    assert expected.shape == (3, 16, 16)


def test_augmentation_depends_on_seed_epoch_and_index_alone(cfg, items):
    wrapper = DatasetWrapper(cfg, [items[3], items[3]], build_transform(cfg, is_train=True), is_train=True)
    first = wrapper[0]["img"]
    assert not torch.equal(wrapper[1]["img"], first)  # the same image under another index
    torch.rand(7)
    assert torch.equal(wrapper[0]["img"], first)
    wrapper.set_epoch(1)
    assert not torch.equal(wrapper[0]["img"], first)
    cfg.SEED = 2
    other = DatasetWrapper(cfg, items[3:4], build_transform(cfg, is_train=True), is_train=True)
    assert not torch.equal(other[0]["img"], first)


def test_loading_draws_nothing_from_torch(cfg, noise):
    manager = DataManager(cfg)
    before = torch.get_rng_state()
    list(manager.train_loader_x), list(manager.test_loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_is_the_same_in_a_run_that_begins_with_it(cfg, noise):
    def draw(manager, epoch):
        manager.set_epoch(epoch)
        batches = list(manager.train_loader_x)
        return torch.cat([batch["img"] for batch in batches]), torch.cat([batch["index"] for batch in batches]).tolist()

    manager = DataManager(cfg)
    epochs = [draw(manager, epoch) for epoch in range(3)]
    assert epochs[0][1] != epochs[1][1]
    images, order = draw(DataManager(cfg), 2)
    assert order == epochs[2][1] and torch.equal(images, epochs[2][0])


@pytest.mark.parametrize(("n_items", "n_batches"), [(3, 1), (4, 1), (7, 1), (8, 2), (14, 3)])
def test_the_last_training_batch_is_dropped_unless_it_is_the_only_one(cfg, items, n_items, n_batches):
    loader = build_data_loader(cfg, items[:n_items], build_transform(cfg, is_train=True), is_train=True)
    assert len(list(loader)) == len(loader) == n_batches
    loader = build_data_loader(cfg, items[:n_items], build_transform(cfg, is_train=False), is_train=False)
    assert sum(len(batch["label"]) for batch in loader) == n_items


def test_several_views_in_training_only_and_the_image_without_augmentation(cfg, noise):
    cfg.DATALOADER.K_TRANSFORMS = 3
    cfg.DATALOADER.RETURN_IMG0 = True
    manager = DataManager(cfg)
    batch = next(iter(manager.train_loader_x))
    assert {"img", "img2", "img3"} < set(batch) and "img4" not in batch
    assert batch["img2"].shape == (4, 3, 16, 16)
    assert not torch.equal(batch["img"], batch["img2"])
    assert not torch.equal(batch["img2"], batch["img3"])
    plain = build_transform(cfg, is_train=False)
    expected = [plain(Image.open(path).convert("RGB")) for path in batch["impath"]]
    assert torch.equal(batch["img0"], torch.stack(expected))
    assert "img2" not in next(iter(manager.test_loader))


def test_custom_transforms_and_wrapper(cfg, noise):
    class Marked(DatasetWrapper):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "mark": 5}

    ones, zeros = (lambda image: torch.ones(1)), (lambda image: torch.zeros(2))
    manager = DataManager(cfg, custom_tfm_train=[ones, zeros], custom_tfm_test=ones, dataset_wrapper=Marked)
    batch = next(iter(manager.train_loader_x))
    assert batch["img"].tolist() == [[1.0]] * 4 and batch["img2"].shape == (4, 2) and batch["mark"].tolist() == [5] * 4
    assert set(next(iter(manager.test_loader))) == {"img", "label", "domain", "impath", "index", "mark"}


def test_a_loader_in_an_order_of_the_methods_own_begins_its_epochs(cfg, noise):
    manager = DataManager(cfg)
    manager.train_loader_x = DataLoader(manager.train_loader_x.dataset, batch_sampler=[[0, 5], [3]])
    for epoch in (0, 1):
        manager.set_epoch(epoch)
        assert [batch["index"].tolist() for batch in manager.train_loader_x] == [[0, 5], [3]]
        assert manager.train_loader_x.dataset.epoch == epoch


def test_no_training_and_no_validation_items(cfg, noise, caplog):
    noise.n_train = 0
    with caplog.at_level(logging.INFO, logger="engine"):
        manager = DataManager(cfg)
    manager.set_epoch(1)
    assert manager.train_loader_x is None and manager.val_loader is None
    assert manager.num_classes == len(manager.lab2cname) == 3
    rows = [line.split() for line in caplog.text.splitlines()]
    assert all(["#", *row] in rows for row in (["classes", "3"], ["train_x", "0"], ["val", "0"], ["test", "14"]))


def test_no_more_workers_than_cores(monkeypatch, caplog):
    monkeypatch.setattr(manager, "n_cores", lambda: 3)
    with caplog.at_level(logging.INFO, logger="engine"):
        assert (count_workers(0), count_workers(3)) == (0, 3)
        assert not caplog.records
        assert count_workers(8) == 3
    assert caplog.messages == ["DATALOADER.NUM_WORKERS is 8, using 3: one for each CPU core"]


class TestLeftOut:
    """What an epoch leaves out of 14 training images, because its last, smaller batch is dropped, is said once."""

    @pytest.fixture
    def say(self, cfg, noise, caplog):
        def say(*pairs):
            cfg.merge_from_list(list(pairs))
            dm = DataManager(cfg)
            with caplog.at_level(logging.INFO):
                dm.set_epoch(0)
                seen = {index for batch in dm.train_loader_x for index in batch["index"].tolist()}
                dm.set_epoch(1)
            return [line for line in caplog.messages if line.startswith("Each epoch uses")], len(seen)

        return say

    @pytest.mark.parametrize(
        ("sampler", "which"), [("Random", "other ones each time"), ("Sequential", "always the same")]
    )
    def test_some(self, sampler, which, say):
        [line], n_seen = say("DATALOADER.TRAIN_X.BATCH_SIZE", 9, "DATALOADER.TRAIN_X.SAMPLER", f"{sampler}Sampler")
        cause = "DATALOADER.TRAIN_X.BATCH_SIZE is 9 and a last, smaller batch is dropped"
        assert line == f"Each epoch uses {n_seen} of 14 training images, {which}: {cause}"

    @pytest.mark.parametrize("size", [7, 14, 32])
    def test_none(self, size, say):
        assert say("DATALOADER.TRAIN_X.BATCH_SIZE", size) == ([], 14)

    def test_a_sampler_that_draws_whole_batches(self, say):
        own = ("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.N_INS", 2)
        assert say(*own)[0] == []
