"""Cached features are those of the tower, found again by what decides them; views are those of the first epochs."""

import builtins
import copy
import errno
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import transforms

from clip.prepared import prepare
from engine import Datum
from engine.config.identity import config_digest
from engine.data.image_io import BrokenImageError, MissingImageError, read_image
from engine.data.transforms import build_transform
from engine.features import reader as feature_reader
from engine.features.reader import FeatureReader
from engine.process_cache import sharing
from tests.support.tiny_run import build_trainer
from tests.support.tolerance import assert_near, distance, rounding_tolerance

kinds = pytest.mark.parametrize("kind", ["vit", "rn"])
METHODS = ("CoOp", "CoCoOp", "ZeroshotCLIP", "LinearProbe")


def options(method):
    return ("TRAINER.NAME", method, "RUN.EVAL_ONLY", method == "ZeroshotCLIP")


def no_images(monkeypatch):
    """From here on no image's file may be opened."""
    opened = builtins.open

    def refuse(file, *args, **options):
        assert not str(file).endswith(".png"), f"{file} is opened"
        return opened(file, *args, **options)

    monkeypatch.setattr(builtins, "open", refuse)


@kinds
@pytest.mark.parametrize("method", METHODS)
def test_logits_from_features_are_those_of_the_pixels(cfg, method, kind, monkeypatch):
    trainer = build_trainer(cfg(*options(method), kind=kind))
    with torch.no_grad():
        pixels = [trainer.model_inference(batch["img"]) for batch in trainer.test_loader]
        first = [logits for logits, _ in trainer.predictions("test")]
        no_images(monkeypatch)
        second, labels = zip(*trainer.predictions("test"))
    assert_near(torch.cat(first), torch.cat(pixels))
    assert torch.equal(torch.cat(second), torch.cat(first))
    assert torch.cat(labels).tolist() == [item.label for item in trainer.dm.dataset.test]


def test_another_run_and_another_method_read_no_image(cfg, monkeypatch):
    results = build_trainer(cfg()).test()
    no_images(monkeypatch)
    assert build_trainer(cfg(name="again")).test() == results
    build_trainer(cfg(*options("CoCoOp"))).test()
    build_trainer(cfg(*options("ZeroshotCLIP"))).test()


@pytest.fixture
def reader(cfg):
    """A FeatureReader whose `encoded` counts the images that went through the tower, and some items."""
    config = cfg()
    trainer = build_trainer(config)
    return counting(config, trainer.clip_model.visual), trainer.dm.dataset.test


def counting(cfg, tower):
    def encode(batch):
        reader.encoded += len(batch)
        return tower(batch).float()

    reader = FeatureReader(cfg, tower)
    reader.encoded, reader.encode = 0, encode
    return reader


def test_what_decides_a_feature_is_part_of_its_name(reader, cfg, tmp_path):
    first, items = reader
    features = first.read(items)
    assert first.encoded == len(items) == 9
    tower = first.tower

    again = counting(cfg(), tower)
    assert torch.equal(again.read(items), features) and again.encoded == 0
    assert torch.equal(again.read(items[::-1]), features.flip(0)) and again.encoded == 0

    other_transform = counting(cfg("INPUT.INTERPOLATION", "bicubic"), tower)
    other_transform.read(items)
    weights = copy.deepcopy(tower)
    next(weights.parameters()).data.view(-1)[0] += 1e-3
    other_weights = counting(cfg(), weights)
    other_weights.read(items)
    assert counting(cfg(), copy.deepcopy(tower).double()).space != again.space
    assert other_transform.encoded == other_weights.encoded == len(items)


@kinds
def test_features_are_the_prepared_towers_and_kept_apart_from_the_plain_ones(cfg, kind):
    trainer = build_trainer(cfg(kind=kind))
    plain = build_trainer(cfg("FEATURES.PREPARED", False, kind=kind))
    images = next(iter(trainer.test_loader))["img"]
    with torch.no_grad():
        expected = trainer.clip_model.visual(images)
        assert torch.equal(plain.encode_images(images), expected)
        assert torch.equal(trainer.encode_images(images), prepare(trainer.clip_model.visual)(images))
    assert_near(trainer.encode_images(images), expected)
    assert trainer.features.space != plain.features.space
    assert config_digest(trainer.cfg) != config_digest(plain.cfg)  # so a run is resumed with the one it began with


@kinds
def test_runs_of_one_process_share_the_prepared_tower_and_train_through_it(cfg, kind):
    with sharing():
        first, second = (build_trainer(cfg("SEED", seed, kind=kind)) for seed in (1, 2))
        assert first.features.tower is second.features.tower is not first.clip_model.visual
        encoded = []
        for tower in (first.features.tower, first.clip_model.visual):
            tower.register_forward_hook(lambda module, images, _: encoded.append((module, len(images[0]))))
        second.forward_backward(next(iter(second.train_loader_x)))
    assert encoded == [(first.features.tower, 4)]


def write_image(path, colour):
    Image.new("RGB", (40, 36), colour).save(path)


RED, BLUE = (200, 10, 10), (10, 10, 200)


def test_the_code_of_a_methods_own_tower_is_part_of_its_name(reader, tmp_path, monkeypatch):
    """Neither its weights nor its repr tell what it does with them."""
    first, items = reader

    def features(factor):
        path = tmp_path / "own_tower.py"
        path.write_text(
            "from torch import nn\n\nclass Tower(nn.Module):\n"
            "    def __init__(self, visual):\n        super().__init__()\n        self.visual = visual\n\n"
            f"    def forward(self, images):\n        return {factor} * self.visual(images)\n"
        )
        spec = importlib.util.spec_from_file_location("own_tower", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "own_tower", module)
        spec.loader.exec_module(module)
        return counting(first.cfg, module.Tower(first.tower)).read(items)

    assert_near(features("10.0"), 10 * features("1.0"))


def test_an_image_that_changes_is_encoded_again(reader, tmp_path):
    first, _ = reader
    path = tmp_path / "image.png"
    item = Datum(str(path))
    write_image(path, RED)
    red = first.read([item])
    write_image(path, BLUE)
    os.utime(path, ns=(1, 1))
    assert distance(first.read([item]), red) > 0.01
    write_image(path, RED)
    os.utime(path, ns=(1, 1))
    assert torch.equal(first.read([item]), red)
    assert first.encoded == 2


def test_a_feature_is_of_the_bytes_that_were_decoded(reader, tmp_path, monkeypatch):
    """The file is written over between the two."""
    first, _ = reader
    for colour in (RED, BLUE):
        write_image(tmp_path / f"{colour}.png", colour)
    red, blue = (first.read([Datum(str(tmp_path / f"{colour}.png"))]) for colour in (RED, BLUE))
    path = tmp_path / "image.png"
    write_image(path, (90, 90, 90))
    gray = Datum(str(path))

    def overtaken(path, read, **options):
        opened = read(path)
        write_image(path, BLUE)
        return read_image(path, lambda _: opened, **options)

    with monkeypatch.context() as patch:
        patch.setattr(feature_reader, "read_image", overtaken)
        old = first.read([gray])
    assert distance(old, red) > 0.01 and distance(old, blue) > 0.01
    again = counting(first.cfg, first.tower)
    assert torch.equal(again.read([gray]), blue) and again.encoded == 0


def test_images_that_are_elsewhere_now_are_not_encoded_again(reader, tmp_path):
    first, items = reader
    features = first.read(items)
    copies = [Datum(shutil.copy(item.impath, f"{tmp_path}/{i}.png")) for i, item in enumerate(items)]
    again = counting(first.cfg, first.tower)
    assert torch.equal(again.read(copies), features) and again.encoded == 0


def test_views_follow_the_bytes_too(reader, tmp_path):
    first, items = reader
    features = views_of(first, items)
    copies = [Datum(shutil.copy(item.impath, f"{tmp_path}/{i}.png")) for i, item in enumerate(items)]
    assert torch.equal(views_of(first, copies), features) and first.encoded == 9 * 3
    assert distance(views_of(first, copies[::-1]), features.flip(0)) > 0.01  # an item's number seeds its views


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("content", "error"), [(b"no image", BrokenImageError), (None, MissingImageError)])
def test_an_image_that_cannot_be_read_is_named_as_elsewhere(reader, tmp_path, content, error, is_first):
    first, items = reader
    if not is_first:
        first.read(items)
    path = tmp_path / "image.png"
    if content:
        path.write_bytes(content)
    messages = []
    for read in (lambda: read_image(path), lambda: first.read([Datum(str(path))])):
        with pytest.raises(error) as caught:
            read()
        messages.append(str(caught.value).split("\n")[-1])
    assert messages[0] in messages[1] and str(path) in messages[0]


def test_a_shard_that_may_not_be_read_is_passed_over(reader, monkeypatch, caplog):
    """As another user's in a cache that several share."""
    first, items = reader
    expected = first.read(items)
    read_bytes = Path.read_bytes

    def refused(path):
        if path.suffix == ".npz":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    again = counting(first.cfg, first.tower)
    assert torch.equal(again.read(items), expected) and again.encoded == len(items)
    assert torch.equal(again.read(items), expected) and again.encoded == len(items)
    assert caplog.text.count("cannot be read ([Errno 13] Permission denied") == 1


def train(cfg):
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer.model.prompt_learner.state_dict()


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp"])
def test_as_many_views_as_epochs_are_fresh_views(cfg, method):
    fresh = train(cfg("TRAINER.NAME", method, name="fresh"))
    views = train(cfg("TRAINER.NAME", method, "INPUT.VIEWS", 2, name="views"))
    assert_near(views, fresh)


def test_epochs_draw_from_the_views(cfg, monkeypatch):
    trainer = build_trainer(cfg("INPUT.VIEWS", 2, "OPTIM.MAX_EPOCH", 5))
    dataset = trainer.train_loader_x.dataset
    expected = []
    for view in range(2):
        dataset.set_epoch(view)
        expected.append(trainer.encode_images(torch.stack([dataset[index]["img"] for index in range(len(dataset))])))
    trainer.before_train()
    seen = set()
    for epoch in range(5):
        trainer.dm.set_epoch(epoch)
        if epoch == 1:
            no_images(monkeypatch)
        batches = list(trainer.train_loader_x)
        assert [batch["index"].tolist() for batch in batches] == list(trainer.dm.train_loader_x.batch_sampler)
        for batch in batches:
            for feature, label, index in zip(batch["features"], batch["label"], batch["index"]):
                fits = [distance(feature, view[index]) < rounding_tolerance() for view in expected]
                assert fits.count(True) == 1 and label == dataset.data_source[index].label
                if epoch < 2:
                    assert fits[epoch]
                else:
                    seen.add((epoch, int(index), fits.index(True)))
    by_epoch = [{view for other, _, view in seen if other == epoch} for epoch in range(2, 5)]
    assert by_epoch == [{0, 1}] * 3  # within an epoch some items show one view, some the other
    trainer.writer.close()


def test_a_run_of_fewer_epochs_encodes_as_many_views_of_one_transform(cfg):
    trainer = build_trainer(cfg("INPUT.VIEWS", 5))
    trainer.train()
    assert trainer.train_loader_x.views.shape[:2] == (12, 2)  # images, epochs
    with pytest.raises(ValueError, match="DATALOADER.K_TRANSFORMS is 2; with INPUT.VIEWS it must be 1. Leave one of"):
        cfg("INPUT.VIEWS", 2, "DATALOADER.K_TRANSFORMS", 2)


def views_of(reader, items):
    return reader.read_views(items, build_transform(reader.cfg, is_train=True), 3)


def test_workers_change_no_view(reader, cfg):
    first, items = reader
    readers = (counting(cfg("FEATURES.DIR", "", "DATALOADER.NUM_WORKERS", n), first.tower) for n in (0, 2))
    alone, workers = (views_of(reader, items) for reader in readers)
    assert alone.shape[:2] == (9, 3) and torch.equal(alone, workers)


@pytest.mark.parametrize(("n_images", "n_kept"), [(4, 0), (8, 8), (12, 8), (24, 24)])
def test_what_was_written_before_a_kill_is_not_encoded_again(reader, cfg, monkeypatch, n_images, n_kept):
    """Pieces of two batches of 4 images: those that are left are encoded as in a reading that nobody ends."""
    first, items = reader
    monkeypatch.setattr(feature_reader, "N_BATCHES", 2)
    expected = views_of(counting(cfg("FEATURES.DIR", ""), first.tower), items)
    encode = first.encode

    def killed(images):
        if first.encoded == n_images:
            raise KeyboardInterrupt
        return encode(images)

    first.encode = killed
    with pytest.raises(KeyboardInterrupt):
        views_of(first, items)
    again = counting(cfg(), first.tower)
    assert torch.equal(views_of(again, items), expected)
    assert again.encoded == 9 * 3 - n_kept


def test_a_transform_that_does_not_say_what_it_is_is_not_kept(cfg):
    class Brighter:  # its repr is an address, or says nothing of the factor
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, image):
            return image * self.factor

    class Silent(torch.nn.Module, Brighter):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        forward = Brighter.__call__

    trainer = build_trainer(cfg())
    items = trainer.dm.dataset.test
    for kind in (Brighter, Silent):
        for factor in (1.5, 2.0):
            transform = transforms.Compose([build_transform(trainer.cfg, is_train=False), kind(factor)])
            expected = trainer.encode_images(torch.stack([transform(read_image(item.impath)) for item in items]))
            features = trainer.features.read(items, transform=transform)
            assert_near(features, expected)
