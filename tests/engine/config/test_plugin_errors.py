"""An error inside a plug-in: the terminal names its file, its line and its kind, and what to do where that is known."""

import pytest

import train

METHOD = """
import torch
from dassl.engine import TRAINER_REGISTRY, TrainerX
from clip import clip
from beside import boom

TABLE = {"OxfordPets": "a photo of a {}, a type of pet."}

@TRAINER_REGISTRY.register()
class Boom(TrainerX):
    def build_model(self):
"""


@pytest.fixture
def call(argv, tmp_path, capsys):
    """Calls train.py with a plug-in whose `build_model` has this line; returns the error's line and the plug-in."""

    def run(line):
        path = tmp_path / "plugin/boom.py"
        path.parent.mkdir()
        path.write_text(f"{METHOD}        {line}\n")
        (tmp_path / "plugin/beside.py").write_text("def boom():\n    return [][1]\n")
        words = ["--trainer=Boom" if word.startswith("--trainer") else word for word in argv("run")]
        assert train.main([f"--plugin={path}", *words]) == 1
        [message] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
        return message, path

    return run


N_LINE = METHOD.count("\n") + 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a, b = 1, 2, 3", "ValueError: too many values to unpack (expected 2)."),
        ("self.cfg['DEVICE']", "KeyError: DEVICE."),
        ("undefined", "NameError: name 'undefined' is not defined."),
        ("TABLE[self.cfg.DATASET.NAME]", "KeyError: Folder. The data set Folder has no entry in the table TABLE: add"),
        ("{'a': 1}[self.cfg.DATASET.NAME]", "KeyError: Folder. The data set Folder has no entry in the table in this"),
        ("open('names/Folder.json')", "The path is taken from the current folder, "),
        ("clip.build_model({}, {'depth': 9})", "`clip` is here this project's. If the file was written for a `clip`"),
        ("from clip.clip import load_deep", "ImportError: cannot import name 'load_deep' from 'clip.clip'"),
        ("from dassl.modeling import build_head", "The file is not at fault: `dassl` is here a thin facade"),
    ],
)
def test_file_line_and_kind(call, tmp_path, line, message):
    found, path = call(line)
    assert found.startswith(f"Error: {path}, line {N_LINE}: ") and message in found
    assert found.endswith("The traceback is in log.txt.")
    assert f'File "{path}", line {N_LINE}, in build_model' in (tmp_path / "run/log.txt").read_text()


def test_what_a_library_says_is_at_the_plug_ins_line(call):
    found, path = call("torch.ones(2, 3) @ torch.ones(2, 3)")
    assert found.startswith(f"Error: {path}, line {N_LINE}: RuntimeError: mat1 and mat2 shapes cannot be multiplied")


def test_in_a_module_beside_it(call):
    found, path = call("boom()")
    assert found.startswith(f"Error: {path.parent}/beside.py, line 2: IndexError: list index out of range. ")


def test_what_ours_says_stays_as_it_is(call):
    found, path = call("clip.load('RN5')")
    assert found.startswith("Error: There is no model 'RN5'. Name one of RN50,")
    assert found.endswith(f"Did you mean RN50? (the plug-in's {path}, line {N_LINE})")


def test_a_trainer_without_a_model(call):
    found, _ = call("pass\nBoom.build_model = TrainerX.build_model")
    assert found.startswith("Error: Boom has no build_model. Define it, ")


def test_an_error_that_is_no_plug_ins_is_no_message(argv, monkeypatch):
    monkeypatch.setattr(train, "run", lambda *args, **kwargs: [][1])
    with pytest.raises(IndexError):
        train.main(argv("run"))
