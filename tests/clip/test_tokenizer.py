"""The tokenizer against the golden ids and open_clip's."""

import gzip
import html
import importlib.util
import json
import random
import re
from pathlib import Path

import ftfy
import pytest
import torch

import clip
from clip import tokenize
from clip.simple_tokenizer import SimpleTokenizer, clean

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tokens.json").read_text())
SOT, EOT = 49406, 49407
TEXTS = [
    "",
    " ",
    "a photo of a cat.",
    "chairs (folding).",
    "X X X X X X X X X X X X X X X X forest path, outdoor.",
    "Boeing 737-300, 1,000.50 €!",
    "don't you'll we've I'M it'S",
    "&lt;b&gt; &amp;amp; &eacute;t&eacute; &#128512;",
    "na\u00efve cafe\u0301 \u2014 \u201cquotes\u201d \u2026",
    "l\u00e2\u20ac\u2122\u00e9t\u00e9",  # mojibake, which ftfy repairs
    "日本語 한국어 العربية हिन्दी ไทย",
    "😀 👩‍👩‍👧‍👦 🇨🇭 ½ Ⅷ ²",
    "tabs\tand\nnew\r\nlines\u00a0and\u2003wide\u200bspaces",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!??...",
    "under_scored snake_case_name #tag @user http://a.b/c?d=e&f=g",
    "\x00\x01\x7f control",
    "İstanbul STRASSE straße ΣΊΣΥΦΟΣ",
    "0123456789 ٣ 三",
    "'s 't ' s",
]


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: repr(case["text"]))
def test_ids_are_the_golden_ones(tokenizer, case):
    assert tokenizer.encode(case["text"]) == case["ids"]


def test_ids_and_their_text_are_open_clips(tokenizer):
    module = pytest.importorskip("open_clip.tokenizer", reason="open_clip_torch is not installed")
    other = module.SimpleTokenizer()
    characters = [chr(code) for code in range(0x20, 0x3000, 7)]  # a sample of every script's letters, marks and signs
    lines = ["".join(characters[i : i + 40]) for i in range(0, len(characters), 40)]
    for text in TEXTS + lines:
        ids = tokenizer.encode(text)
        assert ids == other.encode(text), text
        assert tokenizer.decode(ids) == other.decode(ids), text


def test_plain_text_is_what_ftfy_leaves_of_it():
    """What has nothing to repair is not shown to ftfy: it must be all that ftfy and html leave as it is."""
    rng = random.Random(0)
    characters = [chr(code) for code in range(0x7F)]
    texts = ["".join(rng.choices(characters[first:], k=40)) for first in (0x20, 0x20, 0x27, 0) for _ in range(50)]
    texts += [first + other for first in "&<;#" for other in characters] + ["&amp;amp;", "&EACUTE;", "<b> &lt;"]
    for text in texts:
        repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
        assert clean(text) == re.sub(r"\s+", " ", repaired).strip().lower(), text


def test_every_id_has_one_symbol(tokenizer):
    assert len(tokenizer.encoder) == len(tokenizer.decoder) == 49408
    assert all(tokenizer.encoder[symbol] == i for i, symbol in tokenizer.decoder.items())
    assert tokenizer.encoder["<|startoftext|>"] == SOT
    assert tokenizer.encoder["<|endoftext|>"] == EOT
    assert tokenizer.encode("<|startoftext|>cat<|endoftext|>") == [SOT, *tokenizer.encode("cat"), EOT]


@pytest.mark.parametrize("text", ["a photo of a cat .", "日本語 の 猫", "émigré 😀 here", "it 's"])
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text + " "


def test_bytes_that_are_no_utf8_decode_to_the_replacement_character(tokenizer):
    first_byte_of_two = tokenizer.encoder[tokenizer.byte_encoder[0xC3]]
    assert tokenizer.decode([first_byte_of_two]) == "\ufffd"


def test_tokenize_puts_start_and_end_around_and_zeros_behind():
    tokens = tokenize(["a photo of a cat.", ""])
    assert tokens.shape == (2, 77)
    assert tokens.dtype == torch.int32
    assert tokens[0, :9].tolist() == [SOT, 320, 1125, 539, 320, 2368, 269, EOT, 0]
    assert tokens[1, :3].tolist() == [SOT, EOT, 0]
    assert not tokens[0, 8:].any()
    assert tokenize("cat", context_length=5).tolist() == [[SOT, 2368, EOT, 0, 0]]
    assert tokenize([]).shape == (0, 77)


def test_a_text_may_fill_the_context_and_no_more():
    assert tokenize("cat " * 75)[0, -1] == EOT
    with pytest.raises(
        ValueError,
        match=r"The text 'cat .*' is 78 tokens long .*at most 77 are allowed\. Shorten it; callers of `tokenize`",
    ):
        tokenize("cat " * 76)
    with pytest.raises(ValueError, match="The text 'a b c' is 5 tokens long .*at most 4 are allowed"):
        tokenize(["ok", "a b c"], context_length=4)


def test_truncate_cuts_and_keeps_the_end_token():
    tokens = tokenize("cat " * 100, truncate=True)
    assert tokens[0].tolist() == [SOT] + [2368] * 75 + [EOT]


@pytest.mark.parametrize("name", ["simple_tokenizer", "clip"])
def test_the_vocabulary_is_not_read_at_import(name, monkeypatch):
    monkeypatch.setattr(gzip, "open", lambda *args, **kwargs: pytest.fail("read at import"))
    spec = importlib.util.spec_from_file_location(f"clip.{name}_again", Path(clip.__file__).with_name(f"{name}.py"))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
