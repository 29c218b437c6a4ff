"""CLIP's tokenizer: lower-cased text to the ids of byte pairs, with OpenAI's vocabulary (see VOCABULARY.md).

    text -> clean, lower-case -> words (WORD_PATTERN) -> bytes as characters -> merges, lowest rank first -> ids

Paper: Neural Machine Translation of Rare Words with Subword Units, Sennrich et al., ACL 2016,
https://arxiv.org/abs/1508.07909
"""

import gzip
import html
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import regex

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"  # ends the last symbol of every word
VOCAB_SIZE = 49408
WORD_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


@lru_cache
def default_bpe() -> str:
    return str(Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz"))


class SimpleTokenizer:
    """Text to byte-pair ids and back.

    Args:
        bpe_path: gzipped merges, one a line after a header line; None for CLIP's own vocabulary.

    Attributes:
        encoder: symbol -> id, 49,408 of them; a symbol that ends a word ends in "</w>".
        decoder: id -> symbol.
    """

    def __init__(self, bpe_path: str | Path | None = None):
        merges = _read_merges(str(bpe_path or default_bpe()))
        self.byte_encoder = bytes_to_unicode()
        self.byte_decoder = {character: byte for byte, character in self.byte_encoder.items()}
        characters = list(self.byte_encoder.values())
        vocabulary = characters + [character + END_OF_WORD for character in characters]
        vocabulary += ["".join(pair) for pair in merges] + [START, END]
        self.encoder = {symbol: i for i, symbol in enumerate(vocabulary)}
        self.decoder = dict(enumerate(vocabulary))
        self.bpe_ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.pat = regex.compile(WORD_PATTERN, regex.IGNORECASE)
        self.cache = {START: (START,), END: (END,)}  # word -> its symbols

    def encode(self, text: str) -> list[int]:
        """Ids of a text of any length, without start and end tokens."""
        ids = []
        for word in self.pat.findall(clean(text)):
            characters = "".join(self.byte_encoder[byte] for byte in word.encode("utf-8"))
            ids.extend(self.encoder[symbol] for symbol in self._symbols(characters))
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ids, cleaned and lower-cased as `encode` read it, with one space after every word."""
        characters = "".join(self.decoder[int(token)] for token in tokens)
        raw = bytearray(self.byte_decoder[character] for character in characters)
        return raw.decode("utf-8", errors="replace").replace(END_OF_WORD, " ")

    def _symbols(self, word: str) -> tuple[str, ...]:
        if word not in self.cache:
            self.cache[word] = self._merge((*word[:-1], word[-1] + END_OF_WORD))
        return self.cache[word]

    def _merge(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """Join the neighbours of lowest rank, everywhere they occur, until no neighbours have a rank."""
        while len(symbols) > 1:
            pairs = set(zip(symbols, symbols[1:], strict=False))
            best = min(pairs, key=lambda pair: self.bpe_ranks.get(pair, len(self.bpe_ranks)))
            if best not in self.bpe_ranks:
                break
            symbols = _join(symbols, best)
        return symbols


def clean(text: str) -> str:
    """Repair broken unicode, resolve HTML entities (twice: "&amp;amp;" occurs), single spaces, lower case."""
    if not (text.isascii() and text.isprintable()) or "&" in text:
        import ftfy  # here: it is half of what a tokenizer costs, and plain text has nothing to repair

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@lru_cache
def bytes_to_unicode() -> dict[int, str]:
    """A printable character for each of the 256 bytes: its own where it has one, else the next from 256 on.

    The order is part of the vocabulary: printable bytes first, in their order, then the others.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@lru_cache
def _read_merges(bpe_path: str) -> list[tuple[str, str]]:
    n_merges = VOCAB_SIZE - 2 * 256 - 2  # the file lists more than CLIP uses
    with gzip.open(bpe_path, "rt", encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    return [tuple(line.split()) for line in lines[1 : n_merges + 1]]


def _join(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined, i = [], 0
    while i < len(symbols):
        width = 2 if symbols[i : i + 2] == pair else 1
        joined.append("".join(symbols[i : i + width]))
        i += width
    return tuple(joined)
