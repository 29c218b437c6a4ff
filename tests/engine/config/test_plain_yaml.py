"""Config files of strangers: what could keep the machine busy, or is no plain value, is refused and said."""

import functools
import re

import pytest
from yacs.config import CfgNode as CN

from engine.config.load import ConfigError, check_cfg, full_default, merge, read_yaml
from engine.config.plain_yaml import MAX_BYTES, MAX_DEPTH, MAX_LENGTH, dump_plain_yaml, load_plain_yaml, why_unreadable
from tests.engine.run.test_folder import valid_cfg

LISTS = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
MAPPINGS = "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{x: *{a}, y: *{a}}}\n" for a, b in zip("abcdefgh", "bcdefghi"))
REFUSED = {
    "lists of lists of lists": (LISTS, r"there is the alias \*a, expected its value written out"),
    "mappings of mappings": (MAPPINGS, r"there is the alias \*a, expected its value written out"),
    "a merge key": ("a: &a {x: 1}\nb: {<<: *a}", r"there is the alias \*a"),
    "in itself": ("a: &a [*a]", r"there is the alias \*a"),
    "nested deep": ("a: " + "[" * 90_000, f"values are nested deeper than {MAX_DEPTH}"),
    "nested deep, mappings": ("{a: " * 20_000, f"values are nested deeper than {MAX_DEPTH}"),
    "nested deep, lines": ("- " * 40_000, f"values are nested deeper than {MAX_DEPTH}"),
    "large": ("a: b\n" * 30_000, f"it has 150,000 bytes, expected at most {MAX_BYTES:,}"),
    "a long value": ("a: " + "1:" * 4_000 + "1", f"a value has 8,001 characters, expected at most {MAX_LENGTH:,}"),
    "a long key": ("? " + "a" * 4_000 + "\n: 1", f"a value has 4,000 characters, expected at most {MAX_LENGTH:,}"),
    "an object": ("a: !!python/object/apply:os.getpid []", "could not determine a constructor for the tag"),
    "a name": ("a: !!python/name:os.system", "could not determine a constructor for the tag"),
    "no UTF-8": (b"a: \xff", "UnicodeDecodeError: 'utf-8' codec can't decode"),
    "NUL": ("a: \0", "special characters are not allowed"),
    "a terminal's commands": ("a: \x1b[2J", "special characters are not allowed"),
    "no time": ("a: !!timestamp x", "AttributeError: "),
    "a 13th month": ("a: 2024-13-45", "ValueError: month must be in 1..12"),
    "no truth value": ("a: !!bool x", "KeyError: 'x'"),
    "no number": ("a: !!int x", "ValueError: "),
    "a list as a key": ("? [a]\n: b", "found unhashable key"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_config_needs_is_refused(tmp_path, kind):
    text, reason = REFUSED[kind]
    (tmp_path / "some.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = rf"The config file {tmp_path}/some.yaml is not valid YAML: (?s:.*){reason}"
    with pytest.raises(ConfigError, match=message) as error:
        read_yaml(tmp_path / "some.yaml")
    assert str(error.value).replace("\n", "").isprintable() and len(str(error.value)) < 1_500


def test_what_is_below_the_limits_is_read(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("a: " + "[" * (MAX_DEPTH - 2) + "1" + "]" * (MAX_DEPTH - 2) + "\nb: " + "c" * MAX_LENGTH)
    assert load_plain_yaml(path)["b"] == "c" * MAX_LENGTH
    path.write_bytes(b"\xef\xbb\xbfSEED: 3\r\n")  # as Windows' editors write it
    assert read_yaml(path) == {"SEED": 3}


KEPT = {
    "a text": "c" * MAX_LENGTH,
    "many of them": ["c" * MAX_LENGTH] * 9,
    "odd ones": ["\ud800", "\0", "2024-13-45", "*a", "!!bool x", "猫 " * 900],
    "a number": 10**2_999,
}


@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT)
def test_what_is_written_is_read_again(tmp_path, value):
    path = tmp_path / "config.yaml"
    path.write_text(dump_plain_yaml({"A": value}), encoding="utf-8")
    assert load_plain_yaml(path) == {"A": value} and not why_unreadable({"A": value})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("c" * (MAX_LENGTH + 1), "a value has 3,001 characters, expected at most 3,000"),
        (["a", {"b": "c d" * MAX_LENGTH}], "a value has 9,000 characters, expected at most 3,000"),
        (10**MAX_LENGTH, "a value has 3,001 characters, expected at most 3,000"),
        (
            functools.reduce(lambda inner, _: [inner], range(MAX_DEPTH), "c"),
            f"values are nested deeper than {MAX_DEPTH}",
        ),
    ],
    ids=["a text", "a text inside", "a number", "a deep one"],
)
def test_what_could_not_be_is_told_before(tmp_path, value, reason):
    path = tmp_path / "config.yaml"
    path.write_text(dump_plain_yaml({"A": value}), encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        load_plain_yaml(path)
    assert why_unreadable({"A": value}) == reason


def test_a_config_that_could_not_be_read_again_is_refused():
    cfg = valid_cfg()
    cfg.OWN = CN({"TEXT": "c" * 3_001, **{f"WORDS_{i}": ["d" * 3_000] * 20 for i in range(2)}})
    rule, remedy = "which config.yaml cannot hold", "Shorten it, or have the plug-in read it from a file."
    text, whole = [error for error in check_cfg(cfg) if "config.yaml" in error]
    shown = "'" + "c" * 99 + "..."
    assert text == f"OWN.TEXT is {shown}, {rule}: a value has 3,001 characters, expected at most 3,000. {remedy}"
    assert re.fullmatch(
        rf"The config is large, {rule}: it has 12\d,\d+ bytes, expected at most 100,000\. {remedy}", whole
    )


@pytest.mark.parametrize("base", ['"a\\0.yaml"', '"a\\n* accuracy: 99%.yaml"', "5", "{a: b}"])
def test_a_base_that_is_no_path(tmp_path, base):
    (tmp_path / "some.yaml").write_text(f"_BASE_: {base}\n")
    message = rf"{tmp_path}/some.yaml: _BASE_ is .*, expected the path of one file\."
    with pytest.raises(ConfigError, match=message) as error:
        read_yaml(tmp_path / "some.yaml")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "value", ["(" * 2_900, "-" * 2_900 + "1", "[" * 2_900, 10**400, "\0", ["\n* accuracy: 99%"] * 1_000]
)
def test_values_without_end_are_of_another_type(value):
    [error] = merge(full_default(), {"OPTIM.MAX_EPOCH" if not isinstance(value, int) else "OPTIM.LR": value}, "file")
    assert re.match(r"file: OPTIM\.\w+ is .*, expected a value of type (int|float) such as", error)
    assert error.isprintable() and len(error) < 300


def test_an_unknown_key_forges_no_line():
    [error] = merge(full_default(), {"A\n* accuracy: 99%": 1}, "file")
    assert error == r"file: the key 'A\n* accuracy: 99%' is unknown."
