"""The template of a data set, and the commands that prepare and check one."""

import pytest
from PIL import Image

from datasets import check, prepare
from datasets.base import FewShotDataset, draw_split, write_split
from engine import DATASET_REGISTRY
from tests.support.small_copies import load


@pytest.fixture
def toy():
    """A data set of 4 classes with 10 images each, registered for the time of a test."""

    class Toy(FewShotDataset):
        dataset_dir, image_dir, split_file = "toy", "images", "split.json"
        n_classes, n_items = 4, (20, 8, 12)
        n_prepared = 0

        @classmethod
        def prepare(cls, root, *, given=""):  # as plug-ins were written before --from was `source`
            cls.n_prepared, cls.given = cls.n_prepared + 1, given
            images = root / "toy" / "images"
            for label in range(4):
                (images / str(label)).mkdir(parents=True, exist_ok=True)
                for i in range(10):
                    Image.new("RGB", (8, 8)).save(images / str(label) / f"{i}.jpg")
            write_split(root / "toy" / "split.json", images, *draw_split(cls.list_items(images), 1))

    with DATASET_REGISTRY.overlay():
        yield DATASET_REGISTRY.register(Toy)


def test_the_template_draws_shots_then_classes(toy, tmp_path):
    toy.prepare(tmp_path)
    dataset = load(toy, tmp_path)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (20, 8, 12)
    few, new = load(toy, tmp_path, shots=2), load(toy, tmp_path, shots=2, subset="new")
    assert (len(few.train_x), len(few.val), len(few.test), few.num_classes) == (8, 8, 12, 4)
    assert {x.impath for x in new.train_x} == {x.impath for x in few.train_x if x.label >= 2}
    assert new.classnames == ["2", "3"] and len(new.test) == 6
    assert load(toy, tmp_path, shots=2, seed=2).train_x != few.train_x
    assert toy.prompt_template == "a photo of a {}."


def test_a_data_set_that_can_be_made_is_made_on_first_use(toy, tmp_path):
    toy.prepare_on_first_use, toy.default_root = True, str(tmp_path / "default")
    assert load(toy, "").num_classes == 4
    assert toy.n_prepared == 1 and (tmp_path / "default" / "toy" / "split.json").exists()


def test_missing_root_folder_split_and_image_are_named(toy, tmp_path):
    with pytest.raises(ValueError, match="DATASET.ROOT is empty; .*--root FOLDER, or DATA=.*datasets.prepare Toy"):
        load(toy, "")
    nowhere = tmp_path / "no" / "where"
    with pytest.raises(
        FileNotFoundError, match=f"{nowhere}/toy/images is .*{tmp_path} exists. Run `.* Toy --root {nowhere}`, or"
    ):
        load(toy, nowhere)
    toy.prepare(tmp_path)
    split, images = tmp_path / "toy" / "split.json", tmp_path / "toy" / "images"
    (images / "1" / "3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks 1 image\(s\) in {images}: 1/3.jpg. Run `python -m"):
        load(toy, tmp_path)
    split.unlink()
    with pytest.raises(FileNotFoundError, match=f"{split} is missing; of this path {split.parent} exists"):
        load(toy, tmp_path)


def test_preparing_ends_with_a_check(toy, tmp_path, capsys):
    assert prepare.main(["Toy", "--root", str(tmp_path), "--from", "here"]) == 0
    assert "all is as it should be" in capsys.readouterr().out and toy.given == "here"
    assert check.main(["Toy", "--root", str(tmp_path), "--decode"]) == 0
    out = capsys.readouterr().out
    assert "4 classes; items: train 20, val 8, test 12" in out and "40 image(s) were decoded" in out


def test_commands_say_what_a_user_got_wrong(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DATA", raising=False)
    for argv, message in [
        (["DTDs", "--root", str(tmp_path)], "There is no data set 'DTDs'; choose one of: caltech101, dtd, "),
        (["Toy"], "DATASET.ROOT is empty"),
    ]:
        assert check.main(argv) == prepare.main(argv) == 1
        assert capsys.readouterr().err.count(message) == 2
    assert check.main(["Toy", "--root", str(tmp_path)]) == 1
    assert "images is missing" in capsys.readouterr().out
    monkeypatch.delattr(toy, "prepare")
    assert prepare.main(["Toy", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"Toy does not say how it is prepared. Put its files into {tmp_path}/toy, or state where" in said
    assert check.main(["Toy", "--root", str(tmp_path)]) == 1
    assert "Put the files there, or correct --root" in capsys.readouterr().out  # not: prepare, which would do nothing


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dtd", "eurosat"], "--export-fewshot few.jsonl takes one data set. Name one."),
        (["all"], "--export-fewshot few.jsonl takes one data set. Name one."),
        (["dtd", "--shots", "0"], "--shots is 0; it must be 1 or more, or -1 for all items."),
        (["dtd", "--seed", "-1"], "--seed is -1; it must be 0 or more. Change --seed."),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_fetched(web, argv, message, capsys):
    with pytest.raises(SystemExit):
        prepare.main([*argv, "--root", "/no/such/root", "--export-fewshot", "few.jsonl"])
    assert message in capsys.readouterr().err and web.server.asked == []


def test_data_sets_go_by_their_config_name_and_their_registered_name():
    assert check.find_dataset("caltech101") is check.find_dataset("Caltech101") is DATASET_REGISTRY.get("Caltech101")
