"""A plug-in's file is a member of its package: its imports find what its repository has, and ours stay as they are."""

import sys
from pathlib import Path

import pytest

import clip.clip
import datasets.oxford_pets
import trainers.coop
from engine import TRAINER_REGISTRY
from engine.config.plugins import plugins

METHOD = """
from dassl.engine import TRAINER_REGISTRY, TrainerX

@TRAINER_REGISTRY.register()
class Method(TrainerX):
    pass
"""


@pytest.fixture
def write(tmp_path):
    """Writes files {path: text} into a folder of its own, and returns it."""

    def write_files(files, folder="repository"):
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / folder

    return write_files


@pytest.fixture
def load():
    """Loads plug-ins; returns the module in which the trainer Method is, when all is put back."""

    def load_method(*paths):
        before = (sys.modules.copy(), sys.meta_path.copy(), TRAINER_REGISTRY.registered_names())
        with plugins([str(path) for path in paths]):
            module = sys.modules[TRAINER_REGISTRY.get("Method").__module__]
        ours = {name: module for name, module in sys.modules.items() if name in before[0]}
        assert (ours, sys.meta_path, TRAINER_REGISTRY.registered_names()) == before
        return module

    return load_method


def test_relative_and_absolute_imports_find_the_same_modules_of_its_package(write, load):
    lines = "from .coop import NAME\nfrom . import coop\nfrom ..deep.coop import NAME as above\nimport utils.names\n"
    lines += "import trainers.deep.coop as absolute\nfrom trainers.deep import coop as third\n"
    lines += "import trainers.deep.coop\n"
    repository = write(
        {
            "trainers/__init__.py": "",
            "trainers/deep/__init__.py": "",
            "trainers/deep/coop.py": "NAME = object()\n",
            "trainers/deep/method.py": lines + METHOD,
            "utils/names.py": "",
        }
    )
    module = load(repository / "trainers/deep/method.py")
    assert module.coop is module.absolute is module.third is module.trainers.deep.coop
    assert module.NAME is module.above is module.coop.NAME
    assert module.coop.__file__ == str(repository / "trainers/deep/coop.py")
    assert module.utils.names.__file__ == str(repository / "utils/names.py")


def test_its_own_data_sets_and_trainers_stand_beside_ours(write, load):
    """Where the repository lacks a module of these packages, ours serves: the very one."""
    lines = "from datasets.pets import WORD\nimport datasets.oxford_pets\nfrom trainers.coop import CoOp\n"
    lines += "from .zsclip import ZeroshotCLIP\nfrom clip import clip\n"
    repository = write(
        {"datasets/pets.py": "WORD = 'pets'\n", "trainers/__init__.py": "", "trainers/method.py": lines + METHOD}
    )
    module = load(repository / "trainers/method.py")
    assert module.WORD == "pets"
    assert module.datasets.oxford_pets is datasets.oxford_pets and module.clip is clip.clip
    assert (module.CoOp, module.ZeroshotCLIP) == (trainers.coop.CoOp, trainers.zsclip.ZeroshotCLIP)
    assert datasets.oxford_pets.__spec__.name == "datasets.oxford_pets"


def test_trainers_is_a_package_also_without_init(write, load):
    """As Python takes it where it is started in the repository."""
    lines = "from trainers.deep.base import NAME\nfrom .base import NAME as same\nfrom ..coop import WORD\n"
    lines += "from clip import clip\nimport utils\n"
    files = {"trainers/deep/method.py": lines + METHOD, "trainers/deep/base.py": "NAME = object()\n"}
    files |= {"trainers/coop.py": "WORD = 1\n", "clip/clip.py": "OWN = True\n", "utils.py": "", "trainers/utils.py": ""}
    module = load(write(files) / "trainers/deep/method.py")
    assert module.NAME is module.same and module.clip.OWN
    assert module.utils.__file__ == str(Path(module.__file__).parents[2] / "utils.py")


@pytest.mark.parametrize("folder", ["methods", "my-trainers v1.0"])
def test_a_folder_without_init_is_a_package_too(write, load, folder):
    lines = "from .beside import NAME\nimport beside\nimport above\nfrom clip import clip\n"
    files = {f"{folder}/method.py": lines + METHOD, f"{folder}/beside.py": "NAME = object()\n"}
    repository = write({**files, "above.py": "", "clip/__init__.py": "", "clip/clip.py": "OWN = True\n"})
    module = load(repository / folder / "method.py")
    assert module.NAME is module.beside.NAME and module.clip.OWN
    assert module.above.__file__ == str(repository / "above.py")


def test_a_method_that_imports_when_it_is_called_finds_its_own_clip_too(write):
    """Two repositories one after the other in one process; ours stays what everybody else imports."""
    lines = METHOD + "    @staticmethod\n    def late():\n        from clip import clip\n        return clip.NAME\n"
    for name in ("one", "two"):
        files = {"clip/__init__.py": "", "clip/clip.py": f"NAME = '{name}'\n"}
        repository = write({**files, "trainers/__init__.py": "", "trainers/method.py": lines}, folder=name)
        with plugins([str(repository / "trainers/method.py")]):
            assert TRAINER_REGISTRY.get("Method").late() == name
            from clip import clip as seen_from_here

            assert seen_from_here is clip.clip
    assert "Method" not in TRAINER_REGISTRY and sys.modules["clip.clip"] is clip.clip


def test_clip_with_a_model_of_its_own_alone_is_completed_by_ours(write, load):
    model = "class CLIP: ...\ndef build_model(state_dict, design_details): return design_details\n"
    lines = "import clip.clip\nfrom clip import clip as module\nfrom clip.simple_tokenizer import SimpleTokenizer\n"
    repository = write(
        {"clip/model.py": model, "trainers/__init__.py": "", "trainers/method.py": lines + METHOD},
    )
    module = load(repository / "trainers/method.py")
    assert module.module.build_model({}, {"depth": 2}) == module.clip.build_model({}, {"depth": 2}) == {"depth": 2}
    assert module.module.tokenize("a cat").tolist() == clip.tokenize("a cat").tolist()
    assert clip.build_model is not module.module.build_model


def test_folders_of_data_and_copies_of_dassl_are_no_modules_of_it(write, load):
    lines = "import datasets.oxford_pets\nimport dassl.engine\nimport numpy\n"
    files = {"datasets/caltech-101/README": "", "dassl/engine.py": "X = 1\n", "numpy/setup.py": "X = 1\n"}
    repository = write({**files, "trainers/__init__.py": "", "trainers/method.py": lines + METHOD})
    module = load(repository / "trainers/method.py")
    assert module.datasets is datasets and module.dassl is sys.modules["dassl"] and module.numpy is sys.modules["numpy"]


def test_two_plug_ins_of_one_repository_share_their_modules(write, load):
    data = "from trainers.coop import NAME\nfrom engine import DATASET_REGISTRY, DatasetBase\n"
    data += "@DATASET_REGISTRY.register()\nclass Birds(DatasetBase):\n    name = NAME\n"
    coop = METHOD.replace("Method", "CoOp") + "NAME = object()\n"
    files = {
        "datasets/__init__.py": "",
        "datasets/birds.py": data,
        "trainers/__init__.py": "",
        "trainers/coop.py": coop,
    }
    repository = write(files | {"trainers/method.py": "from .coop import NAME\n" + METHOD})
    with plugins([str(repository / "datasets/birds.py"), str(repository / "trainers/method.py")]):
        module = sys.modules[TRAINER_REGISTRY.get("Method").__module__]
        assert TRAINER_REGISTRY.get("CoOp") is not trainers.coop.CoOp
        assert module.NAME is sys.modules[TRAINER_REGISTRY.get("CoOp").__module__].NAME
    assert TRAINER_REGISTRY.get("CoOp") is trainers.coop.CoOp


def test_plug_ins_within_plug_ins_are_not_mixed(write):
    texts = [METHOD + f"    name = {i}\n" for i in (1, 2)]
    paths = [str(write({"trainers/method.py": text}, folder=text[-2]) / "trainers/method.py") for text in texts]
    with plugins(paths[:1]):
        with plugins(paths[1:]):
            assert TRAINER_REGISTRY.get("Method").name == 2
        assert TRAINER_REGISTRY.get("Method").name == 1
        assert sys.modules[TRAINER_REGISTRY.get("Method").__module__].Method.name == 1


def test_by_its_name_from_its_repositorys_folder(write, load, monkeypatch):
    """The package is named as ours."""
    monkeypatch.chdir(write({"trainers/__init__.py": "", "trainers/method.py": "from clip import clip\n" + METHOD}))
    assert load("trainers.method").clip is clip.clip


def test_clips_own_file_finds_packaging_without_pkg_resources(write, load, monkeypatch):
    """OpenAI's file imports it so; newer versions of setuptools have no pkg_resources."""
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = write({"method.py": "from pkg_resources import packaging\n" + METHOD}) / "method.py"
    assert str(load(path).packaging.version.parse("1.7.1")) == "1.7.1"
