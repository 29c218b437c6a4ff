"""Broken files, made of valid ones.

    bytes flipped, cut, doubled, put in, spliced with another file's
    values, keys and lengths of JSON and YAML exchanged in their place
    records of a checkpoint changed under a right checksum

What is made depends on the valid files and the rng alone.
"""

from __future__ import annotations

import copy
import io
import math
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Load, Dump = Callable[[bytes], Any], Callable[[Any], str]

LARGEST = 1_000_000  # bytes of a broken file
TOKENS = [
    *(b"[" * 100_000, b"{" * 500, b'{"a":' * 5_000, b"- " * 5_000, b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n"),
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5_000, b"0x" + b"f" * 9_000, b"1:" * 4_000 + b"1", b"null", b"true"),
    *(b"../", b"/etc/passwd", b"C:\\", b"..\\", b'"', b"'", b"\\ud800", b"\x1b[2J", "\u202e".encode(), b"\xe2\x80\xa8"),
    *(b"&a [*a, *a]", b"&a {b: *a}", b"*a", b"<<: *a", b"!!bool x", b"!!timestamp x", b"!!binary x", b"? [a]\n: b"),
    *(b"!!python/object/apply:os.getpid []", b"_BASE_: ../../etc\n", b"\n* accuracy: 99.0%\n", b"\nFinish training\n"),
    *(b"=> result\n", b"epoch [", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04", b"R", b"b", b".", b"r\xff\xff\xff\x7f"),
    b"\x8c\x08builtins\x8c\x04eval\x93",
]
VALUES: list[Any] = [
    *(None, True, -1, 10**6 + 1, 10**30, 1.5, math.nan, math.inf, "", "0", [], {}, [[]], {"a": {}}, "x" * 10_000),
    *("../../etc/passwd", "/etc/passwd", "C:\\windows", "..\\a", "a\0b", "a/../../b", ".", "\ud800", "\u202ecod"),
    *("\n* accuracy: 99.0%\n", "\x1b[2J", "<script>", "{}", "{0.__class__}", "%s", "(" * 1_000, "-" * 2_900 + "1"),
    *("train", "test", "RN50", "(224, 224)", "1e-5", "None", "[1, 2]", "1_0"),
]


def break_file(
    valid: Sequence[bytes], rng: random.Random, *, load: Load | None = None, dump: Dump | None = None
) -> bytes:
    """Returns one of the valid files, changed; load and dump are from text to a tree and back, where it has one."""
    data = rng.choice(valid)
    if load and rng.random() < 0.5:
        data = dump(change_tree(load(data), rng)).encode("utf-8", "surrogatepass")
        if rng.random() < 0.7:
            return data
    if data.startswith(b"PK") and rng.random() < 0.7:
        return change_record(data, rng)
    return change_bytes(data, valid, rng)


def change_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Returns the data after one to eight changes at random places."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        start, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        kind, before, after = rng.randrange(7), data[:start], data[start:]
        if kind == 0 and after:
            data = before + bytes([after[0] ^ 1 << rng.randrange(8)]) + after[1:]
        elif kind == 1 and after:
            data = before + bytes([rng.randrange(256)]) + after[1:]
        elif kind == 2:
            data = before + data[end:]
        elif kind == 3:
            data = before
        elif kind == 4:
            data = before + data[start:end] * rng.choice((2, 2, 50)) + data[end:]
        elif kind == 5:
            other = rng.choice(others)
            data = before + other[rng.randint(0, len(other)) :]
        else:
            data = before + rng.choice(TOKENS) + after
        data = data[:LARGEST]
    return data


def change_tree(tree: Any, rng: random.Random) -> Any:
    """Returns lists and dicts with another value, key or length somewhere in them."""
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(tree))
        node, key = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[str(rng.choice(VALUES))[:500]] = node.pop(key)
        elif kind == 2 and isinstance(node, list):
            node.extend([node[key]] * rng.choice((1, 100)))
        else:
            node[key] = copy.deepcopy(rng.choice(VALUES))
        if not tree:
            break
    return tree


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _places(node[key])


def change_record(data: bytes, rng: random.Random) -> bytes:
    """Returns a checkpoint with a changed record, name or compression, whose checksums are right."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        records = {name: old.read(name) for name in old.namelist()}
        chosen = rng.choice([*records, *[name for name in records if name.endswith("/data.pkl")] * 4])
        records[chosen] = change_bytes(records[chosen], [records[chosen]], rng)
        if rng.random() < 0.1:
            records[rng.choice(["../escaped", "archive/code/a.py", "archive/constants.pkl"])] = b"x"
        for name, content in records.items():
            new.writestr(name, content, zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED)
    return changed.getvalue()
