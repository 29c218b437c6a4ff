"""The papers' data sets, each as a small copy: from the publisher's archive to steps of training."""

import pytest

from datasets import check, prepare
from datasets.check import find_dataset
from tests.datasets.splits.test_real_splits import draw_by_the_rule
from tests.support.small_copies import (
    FETCHED_SETS,
    PAPER_SETS,
    SHIFTED,
    load,
    shown,
    small_copy,
)
from tests.support.tiny_run import build_trainer, tiny_cfg


def halve(items, n_base):
    """Those of the base classes, and those of the new ones with labels from 0."""
    base = [item for item in items if item[1] < n_base]
    return base, [(path, label - n_base, name) for path, label, name in items if label >= n_base]


@pytest.mark.parametrize("name", FETCHED_SETS)
def test_from_the_publishers_archive_to_a_checked_copy(name, web, tmp_path, monkeypatch, capsys):
    copy, root = small_copy(name, monkeypatch), tmp_path / "data"
    web.publish(copy)
    assert prepare.main([name, "--root", str(root)]) == 0, capsys.readouterr()
    folder = root / copy.dataset.dataset_dir
    for path, content in copy.laid_out().items():
        assert (folder / path).read_bytes() == content
    assert not list(folder.glob(".*"))  # nothing unfinished is left
    assert check.main([name, "--root", str(root), "--decode"]) == 0
    dataset = load(name, root)
    for split, items in zip(copy.items, (dataset.train_x, dataset.val, dataset.test)):
        assert shown(items, folder / copy.dataset.image_dir) == copy.items[split]


@pytest.mark.parametrize("name", [name for name in FETCHED_SETS if find_dataset(name).mirrored])
def test_from_the_mirrors_archive_where_nothing_else_is_left(name, web, tmp_path, monkeypatch, capsys):
    copy, root = small_copy(name, monkeypatch), tmp_path / "data"
    web.publish(copy)
    web.take_down_publishers()
    assert prepare.main([name, "--root", str(root)]) == 0, capsys.readouterr()
    folder = root / copy.dataset.dataset_dir
    for path, content in copy.laid_out().items():
        assert (folder / path).read_bytes() == content


@pytest.mark.parametrize("name", PAPER_SETS)
def test_few_shots_and_halves_of_the_classes(name, tmp_path, monkeypatch):
    copy = small_copy(name, monkeypatch)
    folder = copy.lay_out(tmp_path) / copy.dataset.image_dir
    train, val = draw_by_the_rule(copy.items, shots=2, seed=3)
    test_only = not copy.items["train"]
    dataset = load(name, tmp_path, shots=2, seed=3)
    assert shown(dataset.train_x, folder) == train
    assert shown(dataset.test, folder) == copy.items["test"]
    assert shown(dataset.val, folder) == (copy.items["test"] if copy.dataset.val_is_test else val)
    if not copy.dataset.val_is_test:
        assert shown(dataset.selection, folder) == val
    assert (dataset.selection == []) == test_only
    n_base = (len(dataset.classnames) + 1) // 2
    halves = [load(name, tmp_path, shots=2, seed=3, subset=subset) for subset in ("base", "new")]
    assert [half.classnames for half in halves] == [dataset.classnames[:n_base], dataset.classnames[n_base:]]
    assert [shown(half.train_x, folder) for half in halves] == list(halve(train, n_base))
    assert [shown(half.test, folder) for half in halves] == list(halve(copy.items["test"], n_base))


@pytest.fixture
def build(tiny_files, tmp_path):
    """Builds a trainer of the small CLIP on a data set under tmp_path."""

    def build(copy, *pairs):
        data = ("DATASET.NAME", copy.dataset.__name__, "DATASET.NUM_SHOTS", 2, "OPTIM.MAX_EPOCH", 1)
        return build_trainer(tiny_cfg(tmp_path, tiny_files[1]["vit"], tmp_path / "run", *data, *pairs))

    return build


@pytest.mark.parametrize("name", [name for name in PAPER_SETS if name not in SHIFTED])
def test_two_steps_of_training_and_a_test(name, build, tmp_path, monkeypatch):
    copy = small_copy(name, monkeypatch)
    copy.lay_out(tmp_path)
    trainer = build(copy, "DATALOADER.TRAIN_X.BATCH_SIZE", copy.dataset.n_classes)
    assert len(trainer.train_loader_x) == 2
    before = trainer.model.prompt_learner.ctx.detach().clone()
    trainer.train()
    after = trainer.model.prompt_learner.ctx
    assert after.isfinite().all() and not before.equal(after)


@pytest.mark.parametrize("name", SHIFTED)
def test_a_set_to_test_on_is_tested_on(name, build, tmp_path, monkeypatch):
    copy = small_copy(name, monkeypatch)
    copy.lay_out(tmp_path)
    trainer = build(copy, "TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True)
    assert 0 <= trainer.test() <= 100
    assert trainer.dm.dataset.train_x == []


# ImageNet, whose archives only a person can fetch


def test_imagenet_comes_with_the_steps_where_its_archives_are_missing(web, tmp_path, monkeypatch, capsys):
    web.publish(small_copy("imagenet", monkeypatch))
    assert prepare.main(["imagenet", "--root", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"{tmp_path / 'imagenet' / 'images' / 'train'} is missing" in message
    steps = message.split("by hand, in imagenet/ under it:")[1]
    for number, step in enumerate(find_dataset("imagenet").by_hand, start=1):
        assert f"\n  {number}. {step}" in steps
    assert (tmp_path / "imagenet" / "classnames.txt").exists()  # this much a command can fetch


# FGVC-Aircraft's lists


def test_an_unknown_variant_and_a_missing_list_of_aircraft_are_named(tmp_path, monkeypatch):
    val = small_copy("fgvc_aircraft", monkeypatch).lay_out(tmp_path) / "images_variant_val.txt"
    val.write_text("0000001 Concorde\n")
    with pytest.raises(ValueError, match=f"{val} has the line '0000001 Concorde' instead of .* one of variants.txt"):
        load("fgvc_aircraft", tmp_path)
    val.unlink()
    with pytest.raises(FileNotFoundError, match=f"{val} is missing; .*datasets.prepare FGVCAircraft"):
        load("fgvc_aircraft", tmp_path)
