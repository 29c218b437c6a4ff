"""Rules that hold for whatever comes: few-shot draws, the layout of prompts, logs.

The examples are drawn by hypothesis, always the same ones.
"""

import logging
import random
import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from yacs.config import CfgNode

from clip.clip import tokenize, tokenizer
from clip.prompt_layout import POSITIONS, lay_out
from clip.simple_tokenizer import END
from datasets.base import draw_few_shots
from engine import Datum, build_evaluator
from reports.runs import END_OF_TEST, END_OF_TRAINING, parse_run

examples = settings(derandomize=True, database=None, deadline=None, max_examples=30)
labels = st.lists(st.integers(0, 9), max_size=60)
shots, seeds = st.integers(1, 20), st.integers(0, 2**31 - 1)


def items_of(numbers, prefix):
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


HOSTILE = ("cat\nFinish training", "\x1b[2J", "c\0at", "\u202etac", "{0.a}", "\ud800")
class_names = st.text(max_size=12) | st.sampled_from(HOSTILE)


@examples
@given(st.lists(class_names, min_size=1, max_size=3), st.integers(1, 8), st.sampled_from(POSITIONS))
def test_the_tokens_of_a_prompt_are_those_of_its_text_in_another_order(names, n_ctx, position):
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
