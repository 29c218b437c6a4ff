"""Class folders: their images, and a sequence that makes an item only when it is asked for."""

import random

import pytest

from datasets.splits.few_shot import draw_few_shots, draw_held_out
from datasets.splits.folder_items import ClassItems, FolderItems, list_class_images, list_images
from engine import Datum

SIZES = (3, 1, 30, 120, 7)


@pytest.fixture
def both():
    """The items of five classes as a lazy sequence, and as the list that it stands for."""
    names = [[f"{label}_{i}.jpg" for i in range(size)] for label, size in enumerate(SIZES)]
    lazy = FolderItems([ClassItems(f"/in/{label}/", names[label], label, f"class {label}") for label in range(5)])
    listed = [
        Datum(f"/in/{label}/{name}", label, classname=f"class {label}") for label in range(5) for name in names[label]
    ]
    return lazy, listed


def test_it_behaves_as_the_list_of_its_items(both):
    lazy, listed = both
    assert len(lazy) == len(listed) == sum(SIZES) and list(lazy) == listed
    assert [lazy[i] for i in range(-len(listed), len(listed))] == [listed[i] for i in range(-len(listed), len(listed))]
    assert (lazy[2:40:3], lazy[-2:], lazy[::-1]) == (listed[2:40:3], listed[-2:], listed[::-1])
    assert (lazy.classes[3][1:3], lazy.classes[3][-1]) == (listed[35:37], listed[153])
    assert lazy.index(listed[50]) == 50 and listed[50] in lazy
    for index in (len(listed), -len(listed) - 1):
        with pytest.raises(IndexError):
            lazy[index]
    assert list(FolderItems([])) == [] and len(FolderItems([])) == 0


@pytest.mark.parametrize("shots", [1, 2, 4, 16, -1])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_drawn_is_what_a_list_gives(both, shots, seed):
    lazy, listed = both
    few = draw_few_shots(lazy, [], shots=shots, seed=seed)
    assert few == draw_few_shots(listed, [], shots=shots, seed=seed)
    held_out = draw_held_out(lazy, few[0], shots=shots, seed=seed)
    assert held_out == draw_held_out(listed, few[0], shots=shots, seed=seed)
    assert random.Random(seed).sample(lazy, 20) == random.Random(seed).sample(listed, 20)


def test_images_are_listed_sorted_without_hidden_and_other_files(tmp_path):
    names = ("b/2.PNG", "b/10.jpg", "b/notes.txt", "b/._10.jpg", "b/JPEG", "b/e.JPEG.tar", "a/x.webp", "c/Thumbs.db")
    for name in (*names, ".cache/1.jpg", "__MACOSX/1.jpg", "d/2.JPEG", "d/1.JPEG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = {name: [path.name for path in paths] for name, paths in list_class_images(tmp_path).items()}
    assert listed == {"a": ["x.webp"], "b": ["10.jpg", "2.PNG"], "c": [], "d": ["1.JPEG", "2.JPEG"]}
    (tmp_path / "d" / "._1.JPEG").touch()
    assert list_images(tmp_path / "d") == ["1.JPEG", "2.JPEG"]
