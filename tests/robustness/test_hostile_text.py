"""Class names, labels and paths of strangers: prompts stay prompts, no path leads out, no line is forged."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip.clip import tokenize, tokenizer
from clip.model import build_model
from clip.prompt_layout import POSITIONS, lay_out
from clip.simple_tokenizer import END, START
from datasets.splits.fewshot_file import read_fewshot, write_fewshot
from datasets.splits.split_file import read_split, write_split
from engine import DATASET_REGISTRY, DatasetBase, Datum
from engine.data.class_rows import ClassRows
from engine.log import close_logging, setup_logging
from engine.text import printable, shorten
from interpret_prompt import main as interpret_prompt
from reports.runs import END_OF_TEST, parse_run
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import build_trainer, tiny_cfg
from tests.support.tolerance import assert_near
from trainers.class_features import ensemble_features

FORGED = "cat\nFinish training\n=> result\n* accuracy: 99.99%"
NAMES = {
    "a forged line": FORGED,
    "another kind of line": FORGED.replace("\n", "\u2028"),
    "a forged result in the line": "cat * accuracy: 99.99%",
    "a terminal's commands": "\x1b[2J\x1b]0;cat\x07",
    "NUL": "c\0at",
    "right to left": "\u202etac\u202c",
    "braces": "{} {0.__class__} {name",
    "percent signs": "100%s %(cat)d %",
    "quotes and backslashes": """a 'cat' "here" \\n \\""",
    "a script": "<script>alert(1)</script> &lt;b&gt;",
    "half a character": "\ud800 cat",
    "marks alone": "\u0301\u200d\ufeff",
    "nothing": "",
    "other letters": "猫 кот قطة 🐈",
}
named = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


class TestPrintable:
    @named
    def test_one_line_that_prints(self, name):
        assert printable(name).isprintable() and shorten(name).isprintable()
        assert printable(name) in (name, repr(name))

    def test_plain_names_are_as_they_are_and_of_a_long_one_the_beginning(self):
        assert [printable(name) for name in ("wine_bottle", "naïve café", "猫")] == ["wine_bottle", "naïve café", "猫"]
        assert printable("ab" * 5_000) == "ab" * 500 + "..."
        assert shorten(["a" * 5_000]) == "['" + "a" * 98 + "..."


class TestPrompts:
    @named
    @pytest.mark.parametrize("position", POSITIONS)
    def test_tokens_are_those_of_the_text_in_another_order(self, name, position):
        layout, words = lay_out([name], 4, position), name.replace("_", " ")
        n_own = len(tokenizer().encode(words))
        before = {"end": 4, "middle": 2, "front": 0}[position]
        assert layout.tokens.tolist() == tokenize(f"X X X X {words}.").tolist()
        [order] = layout.order.tolist()  # [SOS], context vectors, the name, the other vectors, what follows
        assert order == [*range(1 + before), *range(5, 5 + n_own), *range(1 + before, 5), *range(5 + n_own, 77)]

    def test_zero_shot_features_of_the_other_classes_stay(self):
        clip_model, templates = build_model(golden_state_dict("vit")).eval(), ("a photo of a {}.", "itap of a {}.")
        with torch.no_grad():
            found = ensemble_features(clip_model, [*NAMES.values(), "dog"], templates)
            alone = ensemble_features(clip_model, ["dog"], templates)
        assert found.isfinite().all()
        assert_near(found[-1:], alone)

    @pytest.mark.parametrize("name", ["cat " * 2_500, "c" * 10_000, "\n" + "{} 猫" * 2_500])
    def test_of_a_name_that_is_too_long_the_beginning_is_told(self, name):
        for call in (lambda: lay_out(["dog", name], 4), lambda: tokenize(f"a photo of a {name}.")):
            with pytest.raises(ValueError, match=r"tokens.* at most 77 are allowed\. Shorten") as error:
                call()
            assert str(error.value).isprintable() and len(str(error.value)) < 400
            assert name.strip()[:20] in str(error.value)

    @pytest.mark.parametrize("name", [f"a {END}", f"{START} cat", "&lt;|EndOfText|&gt; cat"])
    def test_a_name_that_would_end_its_prompt_is_refused(self, name):
        message = f"The class name {name!r} holds {START} or {END}, which begin and end a prompt. Change"
        with pytest.raises(ValueError, match=re.escape(message)):
            lay_out(["dog", name], 4)


def test_the_log_of_a_run_has_the_runs_result_alone(tmp_path, tiny_files):
    """Class folders of any name that a file system takes, with the accuracy of each class in the log."""
    folders = [name for name in NAMES.values() if name and not set(name) & set("/\0\ud800")]
    for i, name in enumerate(folders):
        (tmp_path / "data" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (17 * i, 99, 0)).save(tmp_path / "data" / "test" / name / "1.png")
    pairs = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True, "TEST.PER_CLASS_RESULT", True)
    cfg = tiny_cfg(tmp_path / "data", tiny_files[1]["vit"], tmp_path / "run", *pairs)
    setup_logging(cfg.OUTPUT_DIR)
    try:
        trainer = build_trainer(cfg)
        trainer.test()
    finally:
        close_logging()
    lines = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("* class: ") for line in lines) == len(folders)
    assert [line.split(":")[0] for line in lines if line.startswith("* ") and "class" not in line] == [
        *("* total", "* correct", "* accuracy", "* error", "* macro_f1", "* average"),
    ]
    assert all(line.replace("\t", "").isprintable() for line in lines) and "Finish training" not in lines
    assert parse_run(tmp_path / "run", end_signal=END_OF_TEST).value == round(trainer.results["accuracy"], 2)


@named
def test_messages_about_items_stay_on_one_line(name):
    others = [Datum(f"{name}.jpg", 5, classname=name)], [Datum(f"{name}.jpg", 0, classname=name)]
    for test in others:
        with pytest.raises(ValueError) as error:
            DatasetBase([Datum("a.jpg", 0, classname="a cat")], test=test)
        assert str(error.value).isprintable()
    with pytest.raises(ValueError) as error:
        checkpoint = {"state_dict": {name: torch.zeros(2, 3)}, "classnames": [name, "a dog"]}
        rows = ClassRows(DatasetBase(test=[Datum("a.jpg", 0, classname="a cat")]), {}, (), "Method")
        rows.fit(checkpoint, {name: torch.zeros(1, 3)}, Path("model"))
    assert str(error.value).isprintable()


def test_the_nearest_words_of_classes_stay_in_their_places(tmp_path, tiny_files, capsys):
    rows = golden_state_dict("vit")["token_embedding.weight"]
    names = [NAMES["a forged line"], NAMES["a terminal's commands"]]
    state = {"state_dict": {"ctx": rows[[320, 2368]].view(2, 1, -1).clone()}, "epoch": 1, "classnames": names}
    torch.save(state, tmp_path / "model")
    assert interpret_prompt([str(tmp_path / "model"), "1", "--backbone", str(tiny_files[1]["vit"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "vector 1" in line] == [f"{name!r}, vector 1" for name in names]
    assert len(lines) == 1 + 2 * 3 and all(map(str.isprintable, lines))


PATHS = {
    "absolute": "/etc/passwd",
    "a step up": "../../etc/passwd",
    "a step up inside": "a/../../../etc/passwd",
    "a step up at the end": "a/..",
    "a drive": "C:/windows/win.ini",
    "a drive's own folder": "c:win.ini",
    "Windows' step up": "a\\..\\..\\win.ini",
    "Windows' root": "\\windows\\win.ini",
    "NUL": "a/1.jpg\0.png",
    "nothing": "",
    "10,000 characters": "../" * 3_333,
}


class TestPaths:
    """Of split files, lists of few shots, publishers' lists."""

    @pytest.mark.parametrize("impath", PATHS.values(), ids=PATHS)
    def test_one_that_leads_out_is_named_with_its_file_and_place(self, tmp_path, impath):
        path, items = tmp_path / "split.json", [["a/1.jpg", 0, "a cat"]]
        path.write_text(json.dumps({"train": items, "val": [], "test": [*items, [impath, 0, "a cat"]]}))
        rule = f"the path is {shorten(impath)}, not below the folder of the images"
        found = re.escape(f"(ValueError: item 2 of test is {shorten([impath, 0, 'a cat'])}: {rule})")
        with pytest.raises(ValueError, match=rf"split file {path} is not readable {found}\. It must .* Delete it"):
            read_split(path, tmp_path)
        few = tmp_path / "few.jsonl"
        few.write_text(json.dumps({"split": "train", "impath": impath, "label": 0, "classname": "a cat"}))
        with pytest.raises(ValueError, match=f"{few}, line 1 is not readable .LeadsOut: {re.escape(rule)}"):
            read_fewshot(few, tmp_path, [], [])

    @pytest.mark.parametrize("impath", ["..a/1.jpg", "a../1.jpg", "a/...jpg", "a b/~/$HOME.jpg", "a/c:1.jpg", "-rf"])
    def test_odd_ones_that_stay_inside(self, tmp_path, impath):
        (tmp_path / "split.json").write_text(json.dumps({"train": [[impath, 0, "a"]], "val": [], "test": []}))
        [[item], _, _] = read_split(tmp_path / "split.json", tmp_path)
        assert item.impath == f"{tmp_path}/{impath}"

    def test_one_of_other_bytes_than_utf_8(self, tmp_path):
        """As Python reads it from a folder, and JSON keeps it."""
        image = tmp_path / os.fsdecode(b"caf\xe9.jpg")
        write_split(tmp_path / "split.json", tmp_path, [Datum(str(image), 0, classname="a")], [], [])
        [items, _, _] = read_split(tmp_path / "split.json", tmp_path)
        assert os.fsencode(items[0].impath).endswith(b"/caf\xe9.jpg")
        write_fewshot(tmp_path / "few.jsonl", tmp_path, items, [])
        assert read_fewshot(tmp_path / "few.jsonl", tmp_path, items, []) == (items, [])

    def test_a_link_that_the_user_made_may_lead_out(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "1.jpg").write_text("x")
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "split.json").write_text(json.dumps({"train": [["a/1.jpg", 0, "a"]], "val": [], "test": []}))
        [[item], _, _] = read_split(tmp_path / "split.json", tmp_path / "images")
        assert os.path.samefile(item.impath, tmp_path / "elsewhere" / "1.jpg")

    def test_publishers_lists(self, tmp_path):
        folder = tmp_path / "fgvc_aircraft"
        (folder / "images").mkdir(parents=True)
        (folder / "variants.txt").write_text("707\n")
        for name in ("train", "val", "test"):
            (folder / f"images_variant_{name}.txt").write_text("../../etc/passwd 707\n")
        message = "_train.txt has the line '../../etc/passwd 707' instead of paths below the folder of the images"
        with pytest.raises(ValueError, match=message):
            DATASET_REGISTRY.get("FGVCAircraft").read_items(tmp_path)


TEXTS = {
    "nested deep": ("[" * 100_000, "its lists are nested too deep"),
    "nested deep in an entry": ('{"train": [' + "[" * 100_000, "its lists are nested too deep"),
    "a key twice": ('{"train": [], "train": [], "val": [], "test": []}', "the key 'train' is there twice"),
    "not a number": ('{"train": [["a", NaN, "a"]]}', "a number is NaN, not a finite one"),
    "a number of 5,000 digits": ('{"train": [["a", ' + "9" * 5_000 + ', "a"]]}', "ValueError: "),
    "no UTF-8": (b'{"train": "\xff"}', "UnicodeDecodeError: "),
    "a byte order mark": ("\ufeff{}", "JSONDecodeError: Unexpected UTF-8 BOM"),
    "a path that no file can have": (
        '{"train": [["\\ud800.jpg", 0, "a"]]}',
        "item 1 of train .*surrogates not",
    ),
    "no lists": ('{"train": 1, "val": [], "test": []}', "TypeError: 'int' object is not iterable"),
    "no entry": ('{"train": [null], "val": [], "test": []}', "item 1 of train is None: "),
}
LABELS = {"true": True, "a text": "0", "a fraction": 1.0, "negative": -1, "huge": 10**30, "none": None, "a list": [0]}


class TestContent:
    @pytest.mark.parametrize("text, reason", TEXTS.values(), ids=TEXTS)
    def test_of_a_list_of_items(self, tmp_path, text, reason):
        split, few = tmp_path / "split.json", tmp_path / "few.jsonl"
        for path in (split, few):
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        message = rf"split file {split} is not readable .*{reason}.* It must be JSON with the lists"
        with pytest.raises(ValueError, match=message) as error:
            read_split(split, tmp_path)
        assert len(str(error.value)) < 1_000
        said = r", line 1 is not readable .* A line is .*Write the list| begins as JSON .*, but is not readable .*Give"
        with pytest.raises(ValueError, match=rf"{few}({said})") as error:
            read_fewshot(few, tmp_path, [], [])
        assert len(str(error.value)) < 1_000

    @pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
    def test_labels(self, tmp_path, label):
        (tmp_path / "split.json").write_text(json.dumps({"train": [["a.jpg", label, "a"]], "val": [], "test": []}))
        rule = "not from 0 to 1,000,000" if type(label) is int else "not a whole number"
        with pytest.raises(ValueError, match=rf"item 1 of train is .*: label is {re.escape(shorten(label))}, {rule}"):
            read_split(tmp_path / "split.json", tmp_path)

    @pytest.mark.parametrize("classname", [None, 5, ["a"], {"a": 1}, True])
    def test_class_names_are_texts(self, tmp_path, classname):
        (tmp_path / "split.json").write_text(json.dumps({"train": [["a.jpg", 0, classname]], "val": [], "test": []}))
        with pytest.raises(ValueError, match=rf"classname is {re.escape(repr(classname))}, not a text"):
            read_split(tmp_path / "split.json", tmp_path)

    def test_of_a_file_of_class_names(self, tmp_path, tiny_files):
        (tmp_path / "names.txt").write_bytes(b"face \xff\n")
        pairs = ("DATASET.CLASSNAMES", str(tmp_path / "names.txt"))
        cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *pairs)
        with pytest.raises(ValueError, match=rf"{tmp_path}/names.txt is not readable \(.*\). Save it as UTF-8 text"):
            DATASET_REGISTRY.get("Folder")(cfg)
