"""Plug-ins: found, registered for one run, with their options; an error says what is wrong with one."""

import sys

import pytest

import train
from engine import DATASET_REGISTRY, EVALUATOR_REGISTRY, TRAINER_REGISTRY
from engine.config.identity import changed_keys, identity
from engine.config.load import ConfigError, flatten, full_default, merge, read_yaml
from engine.config.plugins import plugins
from trainers.base import PromptTrainer
from trainers.coop import CoOp

TRAINER = """
from yacs.config import CfgNode as CN
from engine import TRAINER_REGISTRY, TrainerX

@TRAINER_REGISTRY.register()
class {name}(TrainerX):
    @staticmethod
    def add_config(cfg):
        cfg.TRAINER.MINE = CN()
        cfg.TRAINER.MINE.ALPHA = 0.5
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files below the current folder and returns the path of the last one."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write_file


def refused(*names, configs=()):
    before = (TRAINER_REGISTRY.registered_names(), sys.path.copy())
    with pytest.raises(ConfigError) as error, plugins(names, configs):
        pytest.fail("the plug-in was taken")
    assert (TRAINER_REGISTRY.registered_names(), sys.path) == before
    return str(error.value)


class TestNames:
    def test_a_file_a_module_a_package_and_a_module_of_it(self, write):
        path = write("mine.py", "import beside\n" + TRAINER.format(name="A"))
        write("beside.py", "")
        write("single.py", TRAINER.format(name="B"))
        write("pack/__init__.py", "")
        write("pack/part.py", "NAME = 'x'\n")
        write("pack/method.py", "from .part import NAME\n" + TRAINER.format(name="C"))
        write("many/__init__.py", "from . import method\n")
        write("many/method.py", TRAINER.format(name="D"))
        for _ in range(2):  # a later run in the same process registers them again
            with plugins([path, "single", "pack.method", "many", "trainers.coop"]):
                assert {"A", "B", "C", "D", "CoOp"} <= set(TRAINER_REGISTRY.registered_names())
                assert full_default().TRAINER.MINE.ALPHA == 0.5
            assert not {"A", "B", "C", "D"} & set(TRAINER_REGISTRY.registered_names())
            assert "MINE" not in full_default().TRAINER

    def test_one_of_our_name_replaces_ours(self, write, caplog):
        path = write("coop.py", TRAINER.format(name="CoOp"))
        ours = TRAINER_REGISTRY.get("CoOp")
        with plugins([path]):
            assert TRAINER_REGISTRY.get("CoOp") is not ours
            assert full_default().TRAINER.COOP.N_CTX == 16  # the options of ours stay
        assert TRAINER_REGISTRY.get("CoOp") is ours
        assert caplog.messages == [f"The trainer CoOp is from {path}, not from trainers.coop"]

    def test_a_data_set_and_an_evaluator(self, write, caplog):
        data = write(
            "pets.py",
            "from engine import DATASET_REGISTRY, DatasetBase\n"
            "@DATASET_REGISTRY.register()\nclass OxfordPets(DatasetBase): ...\n",
        )
        measure = write(
            "top5.py", "from engine import EVALUATOR_REGISTRY\n@EVALUATOR_REGISTRY.register()\nclass Top5: ...\n"
        )
        ours = DATASET_REGISTRY.get("OxfordPets")
        for _ in range(2):
            with plugins([data, measure]):
                assert DATASET_REGISTRY.get("OxfordPets") is not ours
                assert "Top5" in EVALUATOR_REGISTRY
            assert DATASET_REGISTRY.get("OxfordPets") is ours and "Top5" not in EVALUATOR_REGISTRY
        assert caplog.messages[0] == f"The data set OxfordPets is from {data}, not from datasets.oxford_pets"


class TestWrongNames:
    def test_two_of_one_name(self, write):
        paths = [write("one/mine.py", TRAINER.format(name="A")), write("two/mine.py", TRAINER.format(name="A"))]
        assert "name A is taken by one.mine.A. Rename two.mine.A" in refused(*paths)

    def test_a_module_that_is_not_there(self, write, tmp_path):
        write("pack/__init__.py", "")
        for name in ("my_packag", "pack.method", "no.such.thing"):
            assert f"--plugin is {name}, which Python does not find from {tmp_path}. Name a module" in refused(name)

    def test_a_file_that_is_not_there(self, write, tmp_path):
        message = f"The plug-in {tmp_path}/no/mine.py does not exist (the part that does: {tmp_path})"
        assert message in refused("no/mine.py")
        write("pack/mine.txt", "")
        for name in ("pack/mine.txt", "./pack"):
            assert f"--plugin is {name}; it must be a .py file or a module" in refused(name)

    def test_a_file_without_a_class(self, write):
        path = write("mine.py", "X = 1\n")
        assert f"--plugin is {path}, which registers nothing. Add @TRAINER_REGISTRY.register()" in refused(path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("def f(:\n", "it raises SyntaxError: invalid syntax (mine.py, line 1)"),
            ("X = 1\nX.y\n", "it raises AttributeError: 'int' object has no attribute 'y' ({path}, line 2)"),
            ("{}['a']\n", "it raises KeyError: a ({path}, line 1)"),
            ("import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing' ({path}, line 1)"),
            ("from dassl.engine import TrainerXU\n", "cannot import name 'TrainerXU' from 'dassl.engine'"),
            ("from .part import x\n", ".part' ({path}, line 1)"),
            ("import no_such_thing\n", "({path}, line 1). Correct it."),
            ("import dassl.modeling\n", "({path}, line 1). The file is not at fault: `dassl` is here a thin facade"),
        ],
    )
    def test_a_broken_file(self, write, text, message):
        path = write("mine.py", text)
        assert message.replace("{path}", path) in refused(path)

    def test_on_the_command_line(self, write, capsys):
        assert train.main(["--plugin", "no_such_plugin"]) == 1
        assert capsys.readouterr().err.startswith("Error: --plugin is no_such_plugin, which Python does not find")


class TestOptions:
    def test_keys_and_their_types(self, write):
        path = write("mine.yaml", 'TRAINER: {MINE: {N: 4, LR: 1e-5, SIZE: "(2, 3)", CTX: a photo of a, CSC: False}}\n')
        with plugins([], [path]):
            node = full_default().TRAINER.MINE
            assert (node.N, node.LR, node.SIZE, node.CTX, node.CSC) == (4, 1e-5, (2, 3), "a photo of a", False)
            assert changed_keys(full_default()).keys() == {f"TRAINER.MINE.{key}" for key in node}
        assert changed_keys(full_default()) == {}

    def test_they_come_after_those_of_the_file(self, write):
        paths = write("mine.py", TRAINER.format(name="A")), write("mine.yaml", "TRAINER: {MINE: {ALPHA: 1}}\n")
        with plugins(paths[:1], paths[1:]):
            assert full_default().TRAINER.MINE.ALPHA == 1.0

    def test_keys_that_are_there_keep_their_type(self, write):
        path = write("mine.yaml", "TRAINER: {COOP: {N_CTX: 4, NEW: 1}}\n")
        with plugins([], [path]):
            assert changed_keys(full_default()) == {"TRAINER.COOP.N_CTX": 4, "TRAINER.COOP.NEW": 1}
            assert flatten(full_default())["TRAINER.COOP.PREC"] == "fp16"

    @pytest.mark.parametrize(("text", "value"), [("false", False), ("0", 0), ("None", None), ("true", True)])
    def test_an_option_that_says_none_may_get_another_type(self, write, text, value):
        """Other repositories declare CTX_INIT as False; then their YAML files hold that type."""
        paths = [write("mine.yaml", f"TRAINER: {{COOP: {{CTX_INIT: {text}}}}}\n")]
        with plugins([], paths):
            assert full_default().TRAINER.COOP.CTX_INIT is value
            cfg = full_default()
            assert merge(cfg, read_yaml(paths[0]), "the trainer's YAML") == [] and cfg.TRAINER.COOP.CTX_INIT is value
        assert full_default().TRAINER.COOP.CTX_INIT == ""
        assert merge(full_default(), {"TRAINER.COOP.CTX_INIT": value}, "file")  # an error as ever

    def test_extend_cfg_may_give_another_type_too(self, write):
        header = "from dassl.engine import TRAINER_REGISTRY, TrainerX\n@TRAINER_REGISTRY.register()\n"
        lines = "    cfg.TRAINER.COOP.CTX_INIT = False\n    cfg.TRAINER.COOP.N_CTX = 4\n"
        path = write("mine.py", f"{header}class A(TrainerX): ...\ndef extend_cfg(cfg):\n{lines}")
        with plugins([path]):
            assert changed_keys(full_default()) == {"TRAINER.COOP.CTX_INIT": False, "TRAINER.COOP.N_CTX": 4}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("TRAINER: {COOP: 3}\n", "overlaps a key or a group of keys of the config. Choose another name."),
            ("SEED: {A: 1}\n", "overlaps a key or a group of keys of the config. Choose another name."),
            ("TRAINER: {MINE: {N: }}\n", "mine.yaml: TRAINER.MINE.N is empty. Give it a default value."),
            ("TRAINER: {COOP: {N_CTX: many}}\n", "TRAINER.COOP.N_CTX is 'many'; it must be of type int, such as 16."),
            ("OPTIM: {NAME: false}\n", "OPTIM.NAME is False; it must be of type str, such as 'adam'."),
        ],
    )
    def test_keys_that_do_not_fit(self, write, text, message):
        assert message in refused(configs=[write("mine.yaml", text)])

    def test_an_extend_cfg_that_fails(self, write):
        header = "from dassl.engine import TRAINER_REGISTRY, TrainerX\n@TRAINER_REGISTRY.register()\n"
        path = write("mine.py", header + "class A(TrainerX): ...\ndef extend_cfg(cfg):\n    cfg.TRAINER.MINE.N = 1\n")
        assert "mine: extend_cfg(cfg) raises AttributeError: MINE (" in refused(path)


class TestWhatMakesAnotherRun:
    def test_how_a_method_computes_is_left_out_under_its_own_node(self):
        class Other(CoOp):
            node = "OTHER"

        assert {"TRAINER.OTHER.CHUNK_ROWS", "TRAINER.OTHER.SHARD_CLASSES"} <= set(Other.not_in_identity)
        assert not [key for key in Other.not_in_identity if not key.startswith("TRAINER.OTHER.")]

    def test_what_a_method_says_itself_counts_for_one_that_builds_on_it(self):
        class Own(PromptTrainer):
            node, not_in_identity = "OWN", ("TRAINER.OWN.N_THREADS",)  # another CHUNK_ROWS may draw anew

        class Heir(Own):
            pass

        assert Heir.not_in_identity == ("TRAINER.OWN.N_THREADS",)

    def test_how_other_methods_compute_is_left_out(self):
        cfg = full_default()
        cfg.TRAINER.NAME = "CoOp"
        cfg.TRAINER.COOP.CHUNK_ROWS = cfg.TRAINER.KGCOOP.CHUNK_ROWS = cfg.TRAINER.CLIPLORA.CHUNK_ROWS = 7
        cfg.TRAINER.KGCOOP.W = 1.0
        assert identity(cfg).keys() == {"TRAINER.NAME", "TRAINER.KGCOOP.W", "TRAINER.CLIPLORA.CHUNK_ROWS"}

    def test_what_another_method_leaves_out_of_the_groups_of_all_stays(self, register):
        class Untrained(PromptTrainer):
            node, not_in_identity = "UNTRAINED", ("OPTIM.LR", "TRAINER.COOP.N_CTX")

        register(TRAINER_REGISTRY, Untrained)
        cfg = full_default(with_plugins=False)
        cfg.TRAINER.NAME, cfg.OPTIM.LR, cfg.TRAINER.COOP.N_CTX = "CoOp", 1.0, 3
        assert identity(cfg).keys() == {"TRAINER.NAME", "OPTIM.LR", "TRAINER.COOP.N_CTX"}
