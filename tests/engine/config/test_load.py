"""The config: files with `_BASE_`, values of the right type, the checks, and all errors in one message."""

import pytest

import datasets  # noqa: F401  registers the data sets
import trainers  # noqa: F401  registers the trainers
from engine.config.defaults import AT_LEAST, NOT_IN_DIGEST, OPTIONS, REFUSED, get_cfg_default
from engine.config.load import (
    ConfigError,
    changed_keys,
    check_cfg,
    flatten,
    full_default,
    merge,
    read_yaml,
    require,
)
from engine.files import missing_path


def write(folder, **files):
    """Writes NAME.yaml for every name = text."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def valid_cfg(**values):
    """A config without errors; `values` with __ for the dots of a key."""
    cfg = full_default()
    named = {"TRAINER.NAME": "CoOp", "DATASET.NAME": "Shapes", "MODEL.BACKBONE.NAME": "RN50"}
    require(merge(cfg, {**named, **{key.replace("__", "."): value for key, value in values.items()}}, "test"))
    return cfg


class TestReadYaml:
    def test_chain_of_bases(self, tmp_path):
        write(
            tmp_path,
            grand="OPTIM: {LR: 0.1, MAX_EPOCH: 200, NAME: sgd}\nINPUT:\n  SIZE: (224, 224)\n",
            base="_BASE_: grand.yaml\nOPTIM: {LR: 0.2, MAX_EPOCH: 100}\n",
            child="_BASE_: base.yaml\nOPTIM: {MAX_EPOCH: 50}\n",
        )
        assert read_yaml(tmp_path / "child.yaml") == {
            "OPTIM.LR": 0.2,
            "OPTIM.MAX_EPOCH": 50,
            "OPTIM.NAME": "sgd",
            "INPUT.SIZE": "(224, 224)",
        }

    def test_base_is_relative_to_the_file(self, tmp_path):
        (tmp_path / "sub").mkdir()
        write(tmp_path, base="SEED: 3\n")
        write(tmp_path / "sub", child="_BASE_: ../base.yaml\n")
        assert read_yaml(tmp_path / "sub" / "child.yaml") == {"SEED": 3}

    def test_empty_file(self, tmp_path):
        write(tmp_path, empty="# nothing\n")
        assert read_yaml(tmp_path / "empty.yaml") == {}

    @pytest.mark.parametrize("files", [{"a": "_BASE_: a.yaml"}, {"a": "_BASE_: b.yaml", "b": "_BASE_: ./a.yaml"}])
    def test_circle(self, tmp_path, files):
        write(tmp_path, **files)
        with pytest.raises(ConfigError, match=r"a.yaml is its own _BASE_ in the end. Remove one of the _BASE_ lines"):
            read_yaml(tmp_path / "a.yaml")

    def test_missing_file_names_the_part_that_exists_and_the_nearest(self, tmp_path):
        write(tmp_path, rn50_ep50="SEED: 1")
        with pytest.raises(ConfigError) as error:
            read_yaml(tmp_path / "rn50_ep500.yaml")
        assert str(error.value) == (
            f"The config file {tmp_path}/rn50_ep500.yaml does not exist (the part that does: {tmp_path}). "
            "See configs/ for the files there are. Did you mean rn50_ep50.yaml?"
        )
        with pytest.raises(ConfigError, match=rf"\(the part that does: {tmp_path}\)"):
            read_yaml(tmp_path / "no" / "such" / "folder" / "rn50.yaml")

    def test_missing_base(self, tmp_path):
        write(tmp_path, child="_BASE_: base.yaml")
        with pytest.raises(ConfigError, match=r"The config file .*base.yaml does not exist"):
            read_yaml(tmp_path / "child.yaml")

    def test_python_files_are_refused(self, tmp_path):
        (tmp_path / "config.py").write_text("raise SystemExit")
        with pytest.raises(ConfigError, match=r"config.py, expected a .yaml file. Python config files are not run"):
            read_yaml(tmp_path / "config.py")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("OPTIM: [1", "is not valid YAML"),
            ("- OPTIM", "holds a list, expected KEY: VALUE lines"),
            ("_BASE_: [a.yaml, b.yaml]", r"_BASE_ is \['a.yaml', 'b.yaml'\], expected the path of one file"),
        ],
    )
    def test_broken_file(self, tmp_path, text, message):
        write(tmp_path, broken=text)
        with pytest.raises(ConfigError, match=message):
            read_yaml(tmp_path / "broken.yaml")

    def test_code_in_yaml_is_not_run(self, tmp_path):
        write(tmp_path, attack="SEED: !!python/object/apply:os.getpid []")
        with pytest.raises(ConfigError, match="is not valid YAML"):
            read_yaml(tmp_path / "attack.yaml")


class TestMerge:
    @pytest.mark.parametrize(
        ("key", "given", "expected"),
        [
            ("INPUT.SIZE", "(32, 32)", (32, 32)),  # a tuple and 1e-5 are strings in YAML
            ("INPUT.SIZE", [32, 32], (32, 32)),
            ("INPUT.PIXEL_MEAN", "(0.5, 0.5, 0.5)", [0.5, 0.5, 0.5]),
            ("INPUT.TRANSFORMS", '["random_flip", "normalize"]', ("random_flip", "normalize")),
            ("OPTIM.WARMUP_CONS_LR", "1e-5", 1e-5),
            ("OPTIM.LR", 1, 1.0),
            ("OPTIM.LR", "1", 1.0),
            ("OPTIM.LR", "-1", -1.0),
            ("SEED", "0", 0),
            ("TEST.NO_TEST", "True", True),
            ("TRAINER.COOP.CTX_INIT", "a photo of a", "a photo of a"),
            ("OUTPUT_DIR", "2024", "2024"),  # a folder whose name reads as a number
            ("TRAINER.COOP.CTX_INIT", "None", "None"),
        ],
    )
    def test_values_are_read_as_literals_of_the_defaults_type(self, key, given, expected):
        cfg = full_default()
        assert merge(cfg, {key: given}, "file") == []
        found = flatten(cfg)[key]
        assert found == expected and type(found) is type(expected)

    @pytest.mark.parametrize(
        ("key", "given", "expected"),
        [
            ("OPTIM.LR", "high", "a value of type float such as 0.0003"),
            ("OPTIM.LR", True, "a value of type float"),
            ("OPTIM.LR", "+-5", "a value of type float"),
            ("OPTIM.MAX_EPOCH", "1.5", "a value of type int such as 10"),
            ("OPTIM.MAX_EPOCH", None, "a value of type int"),
            ("TEST.NO_TEST", 1, "a value of type bool such as False"),
            ("INPUT.SIZE", 224, r"a value of type tuple such as \(224, 224\)"),
            ("OUTPUT_DIR", 5, "a value of type str"),
        ],
    )
    def test_another_type(self, key, given, expected):
        cfg = full_default()
        [error] = merge(cfg, {key: given}, "rn50.yaml")
        assert error.startswith(f"rn50.yaml: {key} is {given!r}, expected ")
        assert error.endswith(".") and expected.replace("\\", "") in error
        assert changed_keys(cfg) == {}

    def test_unknown_key_names_the_nearest(self):
        errors = merge(full_default(), {"OPTIM.MAX_EPOCHS": 5, "FOO": 1, "OPTIM": 3}, "command line")
        assert errors[0] == "command line: the key OPTIM.MAX_EPOCHS is unknown. Did you mean OPTIM.MAX_EPOCH?"
        assert errors[1] == "command line: the key FOO is unknown."
        assert errors[2].startswith("command line: the key OPTIM is unknown.")


class TestChecks:
    def test_the_valid_config_has_no_errors(self):
        assert check_cfg(valid_cfg()) == []

    @pytest.mark.parametrize("key", REFUSED)
    def test_refused_keys(self, key):
        cfg = valid_cfg()
        other = {bool: lambda v: not v, tuple: lambda v: ("x",), str: lambda v: "x"}
        value = flatten(cfg)[key]
        assert merge(cfg, {key: other.get(type(value), lambda v: v + 1)(value)}, "test") == []
        [error] = check_cfg(cfg)
        assert error == f"{key} is {flatten(cfg)[key]!r}, expected its default. {REFUSED[key]}"

    @pytest.mark.parametrize("key", OPTIONS)
    def test_options(self, key):
        cfg = valid_cfg(**{key.replace(".", "__"): OPTIONS[key][-1] + "x"})
        [error] = check_cfg(cfg)
        assert error.startswith(f"{key} is '{OPTIONS[key][-1]}x', expected one of: {', '.join(OPTIONS[key])}.")

    @pytest.mark.parametrize("key", AT_LEAST)
    def test_least_values(self, key):
        cfg = valid_cfg(**{key.replace(".", "__"): AT_LEAST[key] - 1})
        assert check_cfg(cfg) == [f"{key} is {flatten(cfg)[key]}, expected at least {AT_LEAST[key]}."]

    def test_not_a_number_is_not_enough(self):
        assert check_cfg(valid_cfg(OPTIM__LR=float("nan"))) == ["OPTIM.LR is nan, expected at least 0."]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("TRAINER__NAME", "Coop", "The trainer is 'Coop', expected one of: .* Did you mean CoOp?"),
            ("DATASET__NAME", "Caltech", "The data set is 'Caltech', expected one of: .* Did you mean Caltech101?"),
            ("TEST__EVALUATOR", "Segmentation", "The evaluator is 'Segmentation', expected one of: Classification"),
            ("INPUT__TRANSFORMS", ("random_flop",), "random_flop.* Did you mean random_flip?"),
            ("TRAINER__COOP__CLASS_TOKEN_POSITION", "back", "'back'; it must be one of: end, middle, front."),
            ("TRAINER__COOP__PREC", "fp61", "'fp61'; it must be one of: fp32, fp16, amp, bf16. Did you mean fp16?"),
            ("TRAINER__COOP__N_CTX", 0, "TRAINER.COOP.N_CTX is 0; it must be at least 1."),
            ("TRAINER__COOP__CHUNK_ROWS", -1, "TRAINER.COOP.CHUNK_ROWS is -1; it must be 0"),
        ],
    )
    def test_names_and_the_trainers_own_keys(self, key, value, message):
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
        require([])  # no errors, no exception


def test_every_key_that_is_named_exists():
    known = flatten(get_cfg_default())
    assert {*REFUSED, *OPTIONS, *AT_LEAST, *NOT_IN_DIGEST} <= set(known)
    assert all(known[key] in options for key, options in OPTIONS.items())


def test_missing_path(tmp_path):
    message = missing_path(tmp_path / "a" / "b.txt", "The file", "Make it.")
    assert message == f"The file {tmp_path}/a/b.txt does not exist (the part that does: {tmp_path}). Make it."
