"""Images are decoded once and kept within a budget, or named in the error; workers change neither."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip.model import build_model
from engine import Datum, build_transform, get_cfg_default
from engine.data import images as images_module
from engine.data.image_io import read_image
from engine.data.images import DatasetWrapper, ImageCache
from engine.data.manager import build_data_loader
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tiny_run import build_trainer, tiny_cfg, write_images
from tests.support.tolerance import assert_near

N_BYTES = 4 * 40 * 36  # of a tiny image in memory


@pytest.fixture
def paths(tmp_path):
    return sorted(str(path) for path in write_images(tmp_path / "data", splits=("train",)).rglob("*.png"))


@pytest.fixture
def read(monkeypatch):
    """The paths of the files that are read from now on, in this process."""
    read = []

    def spy(path, **options):
        read.append(path)
        return read_image(path, **options)

    monkeypatch.setattr(images_module, "read_image", spy)
    return read


def test_what_fits_is_read_once(paths, read):
    cache = ImageCache(2 * N_BYTES)
    for _ in range(2):
        for path in paths[:4]:
            assert cache.read(path).tobytes() == read_image(path).tobytes()
    assert read == [*paths[:4], *paths[2:4]]


def test_all_views_of_an_image_come_from_one_reading(paths, read):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (16, 16)
    items, transform = [Datum(path) for path in paths], build_transform(cfg, is_train=True)
    views, expected = DatasetWrapper(cfg, items, transform), DatasetWrapper(cfg, items, transform)
    images = {(index, epoch): views[index, epoch] for index in range(len(items)) for epoch in range(3)}
    assert read == paths
    for epoch in range(3):
        expected.set_epoch(epoch)
        for index in range(len(items)):
            view, part = images[index, epoch], expected[index]
            assert torch.equal(view.pop("img"), part.pop("img")) and view == part


@pytest.mark.parametrize(("n_workers", "n_kept"), [(1, 4), (2, 2), (3, 1)])
def test_workers_divide_the_budget(paths, monkeypatch, n_workers, n_kept):
    monkeypatch.setattr(images_module, "get_worker_info", lambda: SimpleNamespace(num_workers=n_workers))
    cache = ImageCache(4 * N_BYTES)
    for path in paths:
        cache.read(path)
    assert len(cache.kept) == n_kept


def test_so_do_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.setattr(images_module, "n_local_ranks", lambda: 4)
    cfg = get_cfg_default()
    cfg.DATALOADER.CACHE_GB = 2.0
    loader = build_data_loader(cfg, [Datum("image.png")], build_transform(cfg), is_train=True)
    assert loader.dataset.images.max_bytes == 0.5e9


@pytest.mark.parametrize("is_train", [True, False])
def test_training_images_alone_are_kept(paths, read, is_train):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (16, 16)
    items = [Datum(path) for path in paths]
    loader = build_data_loader(cfg, items, build_transform(cfg), is_train=is_train, n_workers=0)
    for _ in range(2):
        list(loader)
    assert len(read) == len(paths) * (1 if is_train else 2)


@pytest.mark.parametrize(
    ("content", "error", "words"), [(None, FileNotFoundError, "is missing"), (b"no", ValueError, "does not decode")]
)
@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named(paths, content, error, words, n_workers):
    cfg, path = get_cfg_default(), paths[0]
    Path(path).unlink()
    if content:
        Path(path).write_bytes(content)
    batches = iter(build_data_loader(cfg, [Datum(path)], build_transform(cfg), is_train=False, n_workers=n_workers))
    with pytest.raises(error, match=f"^Image {path} {words}.*python -m datasets.check.*[.]$") as found:
        next(batches)
    with pytest.raises(error) as direct:
        read_image(path)
    assert str(found.value) == str(direct.value)  # the same text from a worker process
    stop_workers(batches)


def stop_workers(batches):
    """Left to the garbage collector, they would be waited for five seconds."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()


def learned(files, folder, *pairs):
    """The context after two epochs, and the images of the third one, in their order."""
    trainer = build_trainer(tiny_cfg(files[0], files[1]["vit"], folder, *pairs, "TEST.NO_TEST", True))
    trainer.train()
    trainer.dm.set_epoch(2)
    images = torch.cat([batch["img"] for batch in trainer.train_loader_x])
    stop_workers(trainer.train_loader_x._iterator)
    return trainer.model.prompt_learner.ctx.detach(), images


def test_runs_are_the_same_with_and_without_workers(tiny_files, tmp_path):
    """Workers live on from epoch to epoch: they see each epoch's number, and keep what they have read."""
    alone = learned(tiny_files, tmp_path / "0", "DATALOADER.CACHE_GB", 0.0)
    some = 5 * N_BYTES / 1e9
    for n, (n_workers, cache_gb) in enumerate([(2, 0.0), (2, some), (2, 2.0), (0, some)], start=1):
        pairs = ("DATALOADER.NUM_WORKERS", n_workers, "DATALOADER.CACHE_GB", cache_gb)
        assert all(map(torch.equal, alone, learned(tiny_files, tmp_path / str(n), *pairs)))


@pytest.mark.parametrize("kind", ["vit", "rn"])
def test_the_memory_format_changes_no_feature(tiny_files, tmp_path, kind):
    plain = build_model(golden_state_dict(kind)).visual
    images = golden_images(kind)
    with torch.no_grad():
        expected = F.normalize(plain(images), dim=-1)
        for channels_last in (True, False):
            pairs = ("MODEL.CHANNELS_LAST", channels_last)
            cfg = tiny_cfg(tiny_files[0], tiny_files[1][kind], tmp_path, *pairs, kind=kind)
            trainer = build_trainer(cfg)
            weight = trainer.clip_model.visual.conv1.weight
            assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
            found = F.normalize(trainer.encode_images(images), dim=-1)
            assert_near(found, expected)
