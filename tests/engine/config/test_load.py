"""Reading configs: files with `_BASE_`, files of strangers, types of values, checks, and one message for all errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.defaults import AT_LEAST, NOT_IN_DIGEST, OPTIONS, REFUSED, get_cfg_default
from engine.config.load import (
    MAX_BYTES,
    MAX_LENGTH,
    ConfigError,
    check_cfg,
    dump_yaml,
    flatten,
    full_default,
    merge,
    read_yaml,
    require,
)
from tests.support.tiny_run import valid_cfg


def write(folder, **files):
    """Writes NAME.yaml for every name = text."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


class TestBases:
    def test_a_file_is_read_on_top_of_its_bases(self, tmp_path):
        (tmp_path / "sub").mkdir()
        write(
            tmp_path,
            grand="OPTIM: {LR: 0.1, MAX_EPOCH: 200, NAME: sgd}\nINPUT:\n  SIZE: (224, 224)\n",
            base="_BASE_: grand.yaml\nOPTIM: {LR: 0.2, MAX_EPOCH: 100}\n",
        )
        write(tmp_path / "sub", child="_BASE_: ../base.yaml\nOPTIM: {MAX_EPOCH: 50}\n")  # relative to the file
        assert read_yaml(tmp_path / "sub" / "child.yaml") == {
            "OPTIM.LR": 0.2,
            "OPTIM.MAX_EPOCH": 50,
            "OPTIM.NAME": "sgd",
            "INPUT.SIZE": "(224, 224)",
        }

    @pytest.mark.parametrize("files", [{"a": "_BASE_: a.yaml"}, {"a": "_BASE_: b.yaml", "b": "_BASE_: ./a.yaml"}])
    def test_a_circle_is_refused(self, tmp_path, files):
        write(tmp_path, **files)
        with pytest.raises(ConfigError, match=r"a.yaml is its own _BASE_ in the end. Remove one of the _BASE_ lines"):
            read_yaml(tmp_path / "a.yaml")

    @pytest.mark.parametrize("base", ['"a\\0.yaml"', '"a\\n* accuracy: 99%.yaml"', "5", "{a: b}", "[a.yaml, b.yaml]"])
    def test_a_base_that_is_no_path_is_refused(self, tmp_path, base):
        write(tmp_path, some=f"_BASE_: {base}\n")
        with pytest.raises(ConfigError, match=r"some.yaml: _BASE_ is .*; it must be the path of one file\.") as error:
            read_yaml(tmp_path / "some.yaml")
        assert str(error.value).isprintable()

    def test_a_missing_file_is_named_with_the_nearest_one(self, tmp_path):
        write(tmp_path, rn50_ep50="SEED: 1", child="_BASE_: base.yaml")
        with pytest.raises(ConfigError) as error:
            read_yaml(tmp_path / "rn50_ep500.yaml")
        assert str(error.value) == (
            f"The config file {tmp_path}/rn50_ep500.yaml does not exist (the part that does: {tmp_path}). "
            "See configs/ for the files there are. Did you mean rn50_ep50.yaml?"
        )
        with pytest.raises(ConfigError, match=r"The config file .*base.yaml does not exist"):
            read_yaml(tmp_path / "child.yaml")

    def test_in_a_folder_that_is_missing_the_nearest_folder_is_named(self, tmp_path):
        (tmp_path / "CoOp").mkdir()
        with pytest.raises(ConfigError, match=r"Coop/rn50.yaml does not exist .* Did you mean CoOp\?"):
            read_yaml(tmp_path / "Coop" / "rn50.yaml")
        with pytest.raises(ConfigError, match=r"rn50.yaml does not exist"):
            read_yaml(Path(__file__) / "rn50.yaml")


LISTS = "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
NOT_YAML = {
    "lists of lists of lists": (LISTS, r"there is the alias \*a; write its value out"),
    "an object": ("a: !!python/object/apply:os.getpid []", "could not determine a constructor for the tag"),
    "nested deep": ("a: " + "[" * 90_000, "RecursionError: "),
    "a long value": ("a: " + "1:" * 4_000 + "1", "a value has 8,001 characters; at most 3,000 are allowed"),
    "a long key": ("? " + "a" * 4_000 + "\n: 1", "a value has 4,000 characters; at most 3,000 are allowed"),
    "not closed": ("OPTIM: [1", "expected ',' or ']'"),
    "no UTF-8": (b"a: \xff", "UnicodeDecodeError: 'utf-8' codec can't decode"),
    "a terminal's commands": ("a: \x1b[2J", "special characters are not allowed"),
    "a 13th month": ("a: 2024-13-45", "ValueError: month must be in 1..12"),
    "no truth value": ("a: !!bool x", "KeyError: 'x'"),
    "a list as a key": ("? [a]\n: b", "found unhashable key"),
}


class TestFilesOfStrangers:
    @pytest.mark.parametrize("kind", NOT_YAML)
    def test_what_is_not_plain_yaml_is_refused(self, tmp_path, kind):
        text, reason = NOT_YAML[kind]
        (tmp_path / "some.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        message = rf"The config file {tmp_path}/some.yaml is not valid YAML: (?s:.*){reason}"
        with pytest.raises(ConfigError, match=message) as error:
            read_yaml(tmp_path / "some.yaml")
        assert str(error.value).replace("\n", "").isprintable() and len(str(error.value)) < 1_500

    def test_other_files_are_refused(self, tmp_path):
        write(tmp_path, large="a: b\n" * 30_000, listed="- OPTIM")
        (tmp_path / "config.py").write_text("raise SystemExit")
        for name, message in {
            "large.yaml": f"has 150,000 bytes; at most {MAX_BYTES:,} are read",
            "listed.yaml": "holds a list; it must hold KEY: VALUE lines",
            "config.py": "is not a .yaml file. Python config files are not run",
        }.items():
            with pytest.raises(ConfigError, match=f"^The config file {tmp_path}/{name} {message}"):
                read_yaml(tmp_path / name)

    @pytest.mark.parametrize(("content", "values"), [(b"# nothing\n", {}), (b"\xef\xbb\xbfSEED: 3\r\n", {"SEED": 3})])
    def test_an_empty_file_and_one_of_windows_are_read(self, tmp_path, content, values):
        (tmp_path / "some.yaml").write_bytes(content)
        assert read_yaml(tmp_path / "some.yaml") == values

    @pytest.mark.parametrize(
        "value",
        [
            "c" * MAX_LENGTH,
            ["c" * MAX_LENGTH] * 9,
            ["\ud800", "\0", "2024-13-45", "*a", "!!bool x", "猫 " * 900],
            10**2_999,
        ],
        ids=["a text", "long texts", "odd texts", "a number"],
    )
    def test_what_is_written_is_read_again(self, tmp_path, value):
        write(tmp_path, config=dump_yaml({"A": value}))
        assert read_yaml(tmp_path / "config.yaml") == {"A": value}


class TestMerge:
    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("INPUT.SIZE", "(32, 32)", (32, 32)),  # a tuple and 1e-5 are strings in YAML
            ("INPUT.SIZE", [32, 32], (32, 32)),
            ("INPUT.PIXEL_MEAN", "(0.5, 0.5, 0.5)", [0.5, 0.5, 0.5]),
            ("INPUT.TRANSFORMS", '["random_flip", "normalize"]', ("random_flip", "normalize")),
            ("OPTIM.WARMUP_CONS_LR", "1e-5", 1e-5),
            ("OPTIM.LR", 1, 1.0),
            ("OPTIM.LR", "1", 1.0),
            ("SEED", "0", 0),
            ("TEST.NO_TEST", "True", True),
            ("TRAINER.COOP.CTX_INIT", "a photo of a", "a photo of a"),
            ("OUTPUT_DIR", "2024", "2024"),  # a folder whose name reads as a number
            ("TRAINER.COOP.CTX_INIT", "None", "None"),
        ],
    )
    def test_values_are_read_as_literals_of_the_defaults_type(self, key, value, expected):
        cfg = full_default()
        assert merge(cfg, {key: value}, "file") == []
        found = flatten(cfg)[key]
        assert found == expected and type(found) is type(expected)

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("OPTIM.LR", "high", "float, such as 0.0003"),
            ("OPTIM.LR", True, "float"),
            ("OPTIM.LR", "+-5", "float"),
            ("OPTIM.MAX_EPOCH", "1.5", "int, such as 10"),
            ("OPTIM.MAX_EPOCH", None, "int"),
            ("TEST.NO_TEST", 1, "bool, such as False"),
            ("INPUT.SIZE", 224, "tuple, such as (224, 224)"),
            ("OUTPUT_DIR", 5, "str"),
        ],
    )
    def test_another_type_is_refused(self, key, value, expected):
        cfg = full_default()
        [error] = merge(cfg, {key: value}, "rn50.yaml")
        assert error.startswith(f"rn50.yaml: {key} is {value!r}; it must be of type {expected}")
        assert cfg == full_default()

    def test_endless_values_are_refused_in_a_short_message(self):
        long = ("(" * 90_000, "-" * 90_000 + "1", "[" * 2_900, "\0", ["\n* accuracy: 99%"] * 1_000)
        for key, value in (*(("OPTIM.MAX_EPOCH", value) for value in long), ("OPTIM.LR", 10**400)):
            [error] = merge(full_default(), {key: value}, "file")
            assert re.match(rf"file: {key} is .*; it must be of type (int|float), such as", error)
            assert error.isprintable() and len(error) < 300
        [error] = merge(full_default(), {"TRAINER.COOP.CTX_INIT": "a " * MAX_LENGTH}, "file")
        assert error == "file: TRAINER.COOP.CTX_INIT has 6,000 characters; at most 3,000 are allowed."

    def test_an_unknown_key_is_refused_with_the_nearest(self):
        values = {"OPTIM.MAX_EPOCHS": 5, "FOO": 1, "OPTIM": 3, "A\n* accuracy: 99%": 1}
        errors = merge(full_default(), values, "command line")
        assert [error.removeprefix("command line: the key ") for error in errors] == [
            "OPTIM.MAX_EPOCHS is unknown. Did you mean OPTIM.MAX_EPOCH?",
            "FOO is unknown.",
            "OPTIM is unknown. Did you mean OPTIM.LR?",
            r"'A\n* accuracy: 99%' is unknown.",
        ]


class TestChecks:
    @pytest.mark.parametrize("key", REFUSED)
    def test_refused_keys(self, key):
        default = flatten(get_cfg_default())[key]
        other = {bool: lambda v: not v, tuple: lambda v: ("x",), str: lambda v: "x"}.get(type(default), lambda v: v + 1)
        [error] = check_cfg(valid_cfg(**{key.replace(".", "__"): other(default)}))
        assert error == f"{key} is {other(default)!r}; only its default, {default!r}, is allowed. {REFUSED[key][1]}"

    @pytest.mark.parametrize("key", OPTIONS)
    def test_options(self, key):
        [error] = check_cfg(valid_cfg(**{key.replace(".", "__"): OPTIONS[key][-1] + "x"}))
        assert error.startswith(f"{key} is '{OPTIONS[key][-1]}x', expected one of: {', '.join(OPTIONS[key])}.")

    @pytest.mark.parametrize("key", AT_LEAST)
    def test_least_values(self, key):
        cfg = valid_cfg(**{key.replace(".", "__"): AT_LEAST[key] - 1})
        assert check_cfg(cfg) == [f"{key} is {flatten(cfg)[key]}; it must be at least {AT_LEAST[key]}."]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("TRAINER__NAME", "Coop", "The trainer is 'Coop', expected one of: .* Did you mean CoOp?"),
            ("DATASET__NAME", "Caltech", "The data set is 'Caltech', expected one of: .* Did you mean Caltech101?"),
            ("TEST__EVALUATOR", "Segmentation", "The evaluator is 'Segmentation', expected one of: Classification"),
            ("INPUT__TRANSFORMS", ("random_flop",), "random_flop.* Did you mean random_flip?"),
            ("OPTIM__LR", float("nan"), "OPTIM.LR is nan; it must be at least 0."),
            ("TRAINER__COOP__CLASS_TOKEN_POSITION", "back", "'back', expected one of: end, middle, front."),
            ("TRAINER__COOP__PREC", "fp61", "'fp61', expected one of: fp32, fp16, amp, bf16. Did you mean fp16?"),
            ("TRAINER__COOP__N_CTX", 0, "TRAINER.COOP.N_CTX is 0; it must be at least 1."),
            ("TRAINER__COOP__CHUNK_ROWS", -2, "TRAINER.COOP.CHUNK_ROWS is -2; it must be 0"),
        ],
    )
    def test_names_numbers_and_the_trainers_own_keys(self, key, value, message):
        with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
            require(check_cfg(valid_cfg(**{key: value})))

    def test_all_errors_stand_in_one_message(self):
        cfg = valid_cfg(OPTIM__NAME="lion", TEST__SPLIT="train")
        errors = merge(cfg, {"OPTIM.LRR": 1, "OPTIM.MAX_EPOCH": "many"}, "a.yaml") + check_cfg(cfg)
        with pytest.raises(ConfigError) as error:
            require(errors)
        first, *lines = str(error.value).split("\n")
        assert first == "The config has 4 errors:"
        assert [line.split(" is ")[0] for line in lines] == [
            "  - a.yaml: the key OPTIM.LRR",
            "  - a.yaml: OPTIM.MAX_EPOCH",
            "  - OPTIM.NAME",
            "  - TEST.SPLIT",
        ]
        require(check_cfg(valid_cfg()))  # no errors, no exception


def test_every_key_that_is_named_exists():
    known = flatten(get_cfg_default())
    assert {*REFUSED, *OPTIONS, *AT_LEAST, *NOT_IN_DIGEST} <= set(known)
    assert all(known[key] in options for key, options in OPTIONS.items())


def test_reading_a_config_costs_no_torch():
    code = "import sys, engine.config.identity, engine.config.plugins; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_config_that_could_not_be_read_again_is_refused():
    """Many values, each short enough: config.yaml would be larger than what is read."""
    errors = check_cfg(valid_cfg(DATASET__SOURCE_DOMAINS=("d" * 100,) * 1_000))
    assert any(re.search(r"The config has 1\d\d,\d+ bytes as config.yaml; at most 100,000 are read", e) for e in errors)
