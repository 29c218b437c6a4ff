"""ImageNet's class names: the papers' are used, a few others are warned of, another list is refused."""

import hashlib
from pathlib import Path

import pytest

from datasets.check import find_dataset, main
from datasets.splits.imagenet_names import clip_names
from tests.support.file_server import no_network
from tests.support.small_annotations import lines
from tests.support.small_copies import SHIFTED, WNID_NAMES, WNIDS, load, small_copy, write_files

CLIPS_SHA256 = (
    "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"  # of open_clip's list, joined by lines
)
NOT_THE_PAPERS = "Results with such prompts do not compare with the papers'."


@pytest.fixture(scope="module")
def wnids():
    timm = pytest.importorskip("timm")
    return (Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt").read_text().split()


@pytest.fixture(scope="module")
def root(wnids, tmp_path_factory):
    """A root with ImageNet-Sketch: its 1,000 folders with an image each, no classnames.txt."""
    root = tmp_path_factory.mktemp("root")
    write_files(root / "imagenet-sketch" / "images", {f"{wnid}/sketch.JPEG": b"an image" for wnid in wnids})
    return root


@pytest.fixture
def say(root, wnids, monkeypatch, capsys):
    """say(names of the 1,000 classes): what loading refuses, or else warns of; the check says the same and fails."""
    dataset = find_dataset("imagenet_sketch")
    monkeypatch.setattr(dataset, "n_items", (0, 0, 1000))
    path = root / "imagenet-sketch" / "classnames.txt"

    def say(names):
        path.write_bytes(lines(map(" ".join, zip(wnids, names, strict=True))))
        try:
            said = "".join(load(dataset, root).warnings)
        except ValueError as error:
            said = str(error)
        assert main(["imagenet_sketch", "--root", str(root)]) == bool(said)
        assert (f"wrong: {said}" if said else "all is as it should be") in capsys.readouterr().out
        assert not said or said.startswith(str(path))
        return said.removeprefix(str(path))

    return say


def test_the_list_is_clips():
    assert hashlib.sha256("\n".join(clip_names()).encode()).hexdigest() == CLIPS_SHA256
    open_clip = pytest.importorskip("open_clip.zero_shot_metadata")
    assert clip_names() == tuple(open_clip.IMAGENET_CLASSNAMES)


def test_the_papers_names_are_used_without_a_word(say):
    assert say(clip_names()) == ""
    assert say([name.upper() for name in clip_names()]) == ""  # the tokenizer reads small letters
    assert say([f"{name} \t" for name in clip_names()]) == ""


def test_the_first_lemmas_of_wordnet_are_refused(say, wnids):
    timm = pytest.importorskip("timm")
    path = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synset_to_lemma.txt"
    lemmas = dict(line.split("\t") for line in path.read_text().splitlines())
    said = say([lemmas[wnid].split(", ")[0].replace("_", " ") for wnid in wnids])
    first = "n01494475 is 'hammerhead', not 'hammerhead shark', n01514668 is 'cock', not 'rooster'"
    assert said.startswith(" is not the papers' list of names. ") and f" names are not CLIP's: {first}" in said


@pytest.mark.parametrize("n_others", [1, 50, 51])
def test_a_few_other_names_are_warned_of_and_more_are_refused(n_others, say):
    said = say([f"thing {row}" if row in range(2, 2 + n_others) else name for row, name in enumerate(clip_names())])
    assert f"{n_others} of 1,000 names are not CLIP's: n01484850 is 'thing 2', not 'great white shark'" in said
    assert said.endswith(NOT_THE_PAPERS) == (n_others <= 50)
    assert ("is not the papers' list of names" in said) == (n_others > 50)


@pytest.mark.parametrize(
    ("change", "shift"),
    [
        (lambda names: [*names[1:], names[0]], "From n01440764 on the list is shifted by one row: "),
        (lambda names: [names[-1], *names[:-1]], "From n01443537 on the list is shifted by one row: "),
        (
            lambda names: [*names[:500], *names[501:511], names[500], *names[511:]],
            "From n03042490 on the list is shifted by one row: 10 have the name below theirs.",
        ),
        (lambda names: [names[5], *names[1:5], names[0], *names[6:]], "2 have the name of another class, from n01440"),
    ],
    ids=["up", "down", "ten rows", "two swapped"],
)
def test_names_in_other_rows_are_refused_and_a_shift_is_told(change, shift, say):
    said = say(change(list(clip_names())))
    assert "is not the papers' list of names" in said and shift in said


@pytest.mark.parametrize("name", ["imagenet", *SHIFTED])
def test_each_of_the_five_looks_at_the_names(name, tmp_path, monkeypatch):
    no_network(monkeypatch)
    copy = small_copy(name, monkeypatch)
    path = copy.lay_out(tmp_path) / "classnames.txt"
    assert load(copy.dataset, tmp_path).warnings == ()
    path.write_bytes(lines(map(" ".join, zip(WNIDS, (*WNID_NAMES[:4], "an eagle")))))
    [said] = load(copy.dataset, tmp_path).warnings
    assert said == f"{path}: 1 of 5 names are not CLIP's: {WNIDS[4]} is 'an eagle', not 'bald eagle'. {NOT_THE_PAPERS}"
    path.write_bytes(lines(map(" ".join, zip(WNIDS, (*WNID_NAMES[1:], WNID_NAMES[0])))))
    with pytest.raises(ValueError, match="the list is shifted by one row: 4 have the name below theirs"):
        load(copy.dataset, tmp_path)
