"""Rules that hold for whatever comes: few-shot draws, base and new classes, prompts, harmonic means, logs, item lists.

The examples are drawn by hypothesis, always the same ones.
"""

import logging
import math
import random
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from yacs.config import CfgNode

from clip.clip import tokenize, tokenizer
from clip.prompt_layout import POSITIONS, lay_out
from clip.simple_tokenizer import END, START
from datasets.base import draw_few_shots, read_split, subsample_classes, write_split
from datasets.splits.fewshot_file import read_fewshot, write_fewshot
from engine import Datum, build_evaluator
from parse_test_res import summarise
from reports.runs import END_OF_TEST, END_OF_TRAINING, parse_run
from reports.tables.cells import HarmonicMean, Value

examples = settings(derandomize=True, database=None, deadline=None, max_examples=30)
labels = st.lists(st.integers(0, 9), max_size=60)
shots, seeds = st.integers(1, 20), st.integers(0, 2**31 - 1)
percents = st.just(0.0) | st.floats(0.01, 100)


def items_of(numbers, prefix=""):
    return [Datum(f"{prefix}{i}.jpg", label, classname=f"class {label}") for i, label in enumerate(numbers)]


@examples
@given(labels, labels, shots, seeds)
def test_the_draw_is_the_naive_one(train, val, n, seed):
    """One generator; classes as they first appear; train first, then val; a small class is taken whole."""
    train, val, rng, expected = items_of(train, "train/"), items_of(val, "val/"), random.Random(seed), []
    for items, most in ((train, n), (val, min(n, 4))):
        drawn = []
        for label in dict.fromkeys(item.label for item in items):
            group = [item for item in items if item.label == label]
            drawn += group if len(group) < most else rng.sample(group, most)
        expected.append(drawn)
    random.seed(seed + 1)  # the draw does not depend on it
    assert draw_few_shots(train, val, shots=n, seed=seed) == tuple(expected)


@examples
@given(labels.filter(bool), labels, labels)
def test_base_and_new_classes_are_a_partition(train, val, test):
    splits = [items_of(numbers, name) for name, numbers in zip(("train/", "val/", "test/"), (train, val, test))]
    halves = {subset: subsample_classes(*splits, subset=subset) for subset in ("base", "new")}
    all_labels = sorted({*train, *val, *test})
    n_base = math.ceil(len(all_labels) / 2)
    for subset, kept in (("base", all_labels[:n_base]), ("new", all_labels[n_base:])):
        for items, chosen in zip(splits, halves[subset], strict=True):
            expected = [(x.impath, kept.index(x.label), x.classname) for x in items if x.label in kept]
            assert [(x.impath, x.label, x.classname) for x in chosen] == expected
    for items, base, new in zip(splits, halves["base"], halves["new"], strict=True):
        assert sorted(x.impath for x in (*base, *new)) == sorted(x.impath for x in items)


HOSTILE = ("cat\nFinish training", "\x1b[2J", "c\0at", "\u202etac", "{0.a}", "\ud800")
class_names = st.text(max_size=12) | st.sampled_from(HOSTILE)


class TestPromptLayout:
    @examples
    @given(st.lists(class_names, min_size=1, max_size=3), st.integers(1, 8), st.sampled_from(POSITIONS))
    def test_the_tokens_are_those_of_the_text_in_another_order(self, names, n_ctx, position):
        layout = lay_out(names, n_ctx, position)
        texts = ["X " * n_ctx + name.replace("_", " ") + "." for name in names]
        assert layout.tokens.tolist() == tokenize(texts).tolist()
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        for name, tokens, order in zip(names, layout.tokens.tolist(), layout.order.tolist(), strict=True):
            own = len(tokenizer().encode(name.replace("_", " ")))
            assert sorted(order) == list(range(77))
            assert [column for column in order if 1 <= column <= n_ctx] == list(range(1, 1 + n_ctx))
            assert order[: 1 + before] == list(range(1 + before))  # [SOS], then the context vectors in front
            assert order[1 + before : 1 + before + own] == list(range(1 + n_ctx, 1 + n_ctx + own))  # the name
            assert tokens.index(tokenizer().encoder[END]) == layout.eot[names.index(name)]
            assert order.index(tokens.index(tokenizer().encoder[END])) > max(order.index(c) for c in range(1 + n_ctx))

    @examples
    @given(st.text(max_size=40))
    def test_any_text_has_ids_and_two_marks(self, text):
        [ids] = tokenize([text], truncate=True).tolist()
        start, end = (tokenizer().encoder[symbol] for symbol in (START, END))
        assert ids[0] == start and end in ids and all(0 <= token < 49408 for token in ids)


@examples
@given(percents, percents)
def test_harmonic_mean(base, new):
    cells = [SimpleNamespace(measure=lambda output, value=value: Value(value)) for value in (base, new)]
    expected = 2 / (1 / base + 1 / new) if base * new else 0
    for pair in (cells, cells[::-1]):
        assert math.isclose(HarmonicMean(*pair).measure(Path()).value, expected, rel_tol=1e-9)


@examples
@given(st.lists(percents, min_size=1, max_size=6))
def test_mean_and_spread(values):
    mean, std = summarise(values)
    assert min(values) - 1e-9 <= mean <= max(values) + 1e-9
    assert math.isclose(std, math.sqrt(sum((x - mean) ** 2 for x in values) / len(values)), abs_tol=1e-9)


answers = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@examples
@given(answers, st.lists(st.text(max_size=60), min_size=4, max_size=4), st.booleans())
def test_what_a_log_says_is_read_back(pairs, names, trained):
    """Whatever the classes are called."""
    correct = sum(label == answer for label, answer in pairs)
    expected = {"accuracy": 100 * correct / len(pairs), "error": 100 - 100 * correct / len(pairs)}
    with tempfile.TemporaryDirectory() as folder:
        begin = f"Loading CLIP (backbone: RN50)\n{END_OF_TRAINING}\n" if trained else "Loading CLIP (backbone: RN50)\n"
        Path(folder, "log.txt").write_text(begin + logged(pairs, names), encoding="utf-8")
        for keyword, value in expected.items():
            end_signal = END_OF_TRAINING if trained else END_OF_TEST
            assert parse_run(Path(folder), keyword=keyword, end_signal=end_signal).value == round(value, 2)
            if not trained:
                assert parse_run(Path(folder), keyword=keyword).value is None


def logged(pairs, names):
    """What the evaluator logs of (label, answer) pairs."""
    cfg = CfgNode({"OUTPUT_DIR": "", "TEST": {"EVALUATOR": "Classification", "COMPUTE_CMAT": False}})
    cfg.TEST.PER_CLASS_RESULT = True
    evaluator, lines = build_evaluator(cfg, dict(enumerate(names))), []
    logger = logging.getLogger("engine.evaluator")
    handler, level = logging.Handler(), logger.level
    handler.emit = lambda record: lines.append(record.getMessage() + "\n")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        labels, found = zip(*pairs)
        evaluator.process(torch.eye(4)[list(found)], torch.tensor(labels))
        evaluator.evaluate()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return "".join(lines)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
file_names = texts.map(lambda name: "a/" + re.sub(r"[/\\\0]", "", name) + ".jpg")


@examples
@given(st.lists(st.tuples(file_names, st.integers(0, 5), texts), min_size=1, max_size=6, unique_by=lambda row: row[0]))
def test_lists_of_items_are_read_as_written(rows):
    with tempfile.TemporaryDirectory() as folder:
        images, items = Path(folder, "images"), []
        for name, label, classname in rows:
            items.append(Datum(str(images / name), label, classname=classname))
        write_split(Path(folder, "split.json"), images, items, items[:1], items[1:])
        assert read_split(Path(folder, "split.json"), images) == (items, items[:1], items[1:])
        write_fewshot(Path(folder, "few.jsonl"), images, items[1:] or items, items[:1] if items[1:] else [])
        found = read_fewshot(Path(folder, "few.jsonl"), images, items, items)
        assert found == (items[1:] or items, items[:1] if items[1:] else [])
