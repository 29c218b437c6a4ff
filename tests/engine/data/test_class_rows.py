"""What is learned for each class is only asked about the classes it was learned on, whatever the method."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import train
from clip.clip import tokenizer
from clip.simple_tokenizer import END_OF_WORD
from engine import DATASET_REGISTRY, DatasetBase, Datum, load_checkpoint, save_checkpoint
from engine.config.plugins import plugins
from engine.data.class_rows import ClassRows
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import build_trainer, run_train, tiny_cfg, write_images
from tests.support.tolerance import assert_near

PAGE = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text(encoding="utf-8")
[TASKRES] = re.findall(r"^`trainers/taskres.py`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TASKRES = TASKRES.replace("from .base import", "from trainers.base import")
COMMON = """
import torch
from torch import nn
from torch.nn import functional as F
from clip import clip

class Weights(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.w, self.scale = nn.Parameter(start), nn.Parameter(torch.full((2,), 10.0))

def build_model(self):
    self.clip_model = clip.load(self.cfg.MODEL.BACKBONE.NAME, "cpu")[0].requires_grad_(False)
    names = [f"a photo of a {name}." for name in self.dm.dataset.classnames]
    self.model = Weights(self.clip_model.encode_text(clip.tokenize(names)))
    start(self)
    optim = build_optimizer(self.model, self.cfg.OPTIM)
    self.register_model("weights", self.model, optim, build_lr_scheduler(optim, self.cfg.OPTIM))

def model_inference(self, images):
    features = F.normalize(self.clip_model.encode_image(images), dim=-1)
    return self.model.scale[0] * features @ F.normalize(self.model.w, dim=-1).t()

def forward_backward(self, batch):
    images, labels = self.parse_batch_train(batch)[:2]
    loss = F.cross_entropy(self.model_inference(images), labels)
    self.model_backward_and_update(loss)
    return {"loss": loss.detach()}
"""
METHOD = """
class Rows(TrainerX):
    learned_per_class = {DECLARED}
    build_model, model_inference, forward_backward = build_model, model_inference, forward_backward
"""
PLAIN = f"""{COMMON}
from engine import TRAINER_REGISTRY, TrainerX, build_lr_scheduler, build_optimizer

def start(self):
    pass

@TRAINER_REGISTRY.register(){METHOD}"""
DASSL = f"""{COMMON}
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights

def start(self):
    if self.cfg.MODEL.INIT_WEIGHTS:
        load_pretrained_weights(self.model, self.cfg.MODEL.INIT_WEIGHTS)

@TRAINER_REGISTRY.register(){METHOD}
    def load_model(self, directory, epoch=None):
        checkpoint = load_checkpoint(f"{{directory}}/weights/model.pth.tar-{{epoch}}")
        WEIGHTS
"""
LOADS = 'self._models["weights"].load_state_dict(checkpoint["state_dict"], strict=False)'
COPIES = 'self.model.w.data.copy_(checkpoint["state_dict"]["w"])'
SCALE_ALONE = 'self.model.scale.data.copy_(checkpoint["state_dict"]["scale"])'


def plain(declared="{}"):
    return PLAIN.replace("{DECLARED}", declared)


def dassl(loads=LOADS, declared="{}"):
    return DASSL.replace("{DECLARED}", declared).replace("WEIGHTS\n", f"{loads}\n")


METHODS = {  # the name, the plug-in's text, the keys
    "CoOp": ("CoOp", "", ("TRAINER.COOP.CSC", True)),
    "LinearProbe": ("LinearProbe", "", ("TRAINER.LINEAR_PROBE.PREC", "fp32")),
    "TaskRes": ("TaskRes", TASKRES, ("TRAINER.TASKRES.PREC", "fp32")),
    "plain": ("Rows", plain(), ()),
    "dassl": ("Rows", dassl(), ()),
}
BASE, NEW = "2 classes (face ... leopard)", "2 (wine_bottle ... zebra)"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four classes: two are base, two are new."""
    data = write_images(tmp_path_factory.mktemp("data"))
    for split in data.iterdir():
        shutil.copytree(split / "face", split / "zebra")
    return data


@pytest.fixture
def cfg(data, tiny_files, tmp_path):
    """Makes the config of a method, on a part of the classes."""

    def make(method, folder, subset, *pairs):
        name, _, keys = METHODS[method] if isinstance(method, str) else method
        pairs = ("TRAINER.NAME", name, "DATASET.SUBSAMPLE_CLASSES", subset, "OPTIM.MAX_EPOCH", 1, *keys, *pairs)
        return tiny_cfg(data, tiny_files[1]["vit"], tmp_path / folder, *pairs)

    return make


@pytest.fixture
def plugin(tmp_path):
    """plugin(text): its file is a plug-in until the test ends."""
    contexts = []

    def use(text):
        (tmp_path / "plugin.py").write_text(text)
        contexts.append(plugins([str(tmp_path / "plugin.py")] if text else []))
        contexts[-1].__enter__()

    yield use
    for context in reversed(contexts):
        context.__exit__(None, None, None)


def load(trainer, folder, method):
    trainer.load_model(folder, None if method == "LinearProbe" else 1)
    return trainer


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_other_classes_are_refused(self, cfg, plugin, tmp_path, method):
        plugin(METHODS[method][1])
        run_train(cfg(method, "run", "base"))
        for subset, asked in (("new", NEW), ("all", "4 (face ... zebra)")):
            with pytest.raises(ValueError) as error:
                load(build_trainer(cfg(method, "eval", subset, "RUN.EVAL_ONLY", True)), tmp_path / "run", method)
            assert f", learned for each of {BASE}, but Folder has {asked}." in str(error.value)
            assert str(error.value).startswith(str(tmp_path / "run"))

    def test_some_of_the_classes_get_their_rows(self, cfg, plugin, tmp_path, method):
        plugin(METHODS[method][1])
        run_train(cfg(method, "run", "all"))
        images = golden_images("vit")
        with torch.no_grad():
            learned = load(build_trainer(cfg(method, "eval", "all")), tmp_path / "run", method).model_inference(images)
            for subset, columns in (("base", [0, 1]), ("new", [2, 3])):
                trainer = build_trainer(cfg(method, "eval", subset, "RUN.EVAL_ONLY", True))
                load(trainer, tmp_path / "run", method)
                assert_near(trainer.model_inference(images), learned[:, columns])
                assert trainer.warnings == []


def test_of_several_classes_of_one_name_the_first_is_the_first():
    """As ImageNet has them; a name that is asked for more often than it was learned is a new class's, too."""
    names = ["bird", "crane", "tea_pot", "crane", "crane"]
    data = DatasetBase(test=[Datum(label=label, classname=name) for label, name in enumerate(names)])
    assert ClassRows(data, {}, (), "A").known(["crane", "bird", "crane"]) == [1, 0, None, 2, None]


def test_the_error_says_how_to_declare_what_all_classes_share(cfg, plugin, tmp_path):
    plugin(plain())
    run_train(cfg("plain", "run", "base"))
    pairs = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "run"), "RUN.LOAD_EPOCH", 1)
    with pytest.raises(ValueError) as error:
        train.run(cfg("plain", "eval", "new", *pairs))
    assert 'write learned_per_class = {"w": False, "scale": False} into the class Rows.' in str(error.value)
    assert not (tmp_path / "eval/results.json").exists()


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp"])
def test_a_context_for_all_is_shared_though_it_has_as_many_vectors_as_there_are_classes(cfg, tmp_path, method):
    """M = C = 2."""
    method = (method, "", ("TRAINER.COCOOP.N_CTX", 2, "TRAINER.COCOOP.PREC", "fp32"))
    learned = build_trainer(cfg(method, "run", "base"))
    learned.train()
    trainer = build_trainer(cfg(method, "eval", "new"))
    trainer.load_model(tmp_path / "run", epoch=1)
    assert torch.equal(trainer.model.prompt_learner.ctx, learned.model.prompt_learner.ctx)


@pytest.mark.parametrize("text", [plain('{"w": False}'), dassl(declared='{"w": False, "scale": False}')])
def test_what_is_declared_shared_goes_anywhere(cfg, plugin, tmp_path, text):
    """`scale` has two values, and there are two classes."""
    text = text.replace('"w": False}', '"w": False, "scale": False}')
    plugin(text)
    run_train(cfg("plain", "run", "base"))
    trainer = build_trainer(cfg("plain", "eval", "new"))
    trainer.load_model(tmp_path / "run", epoch=1)
    state_dict = load_checkpoint(tmp_path / "run/weights/model.pth.tar-1")["state_dict"]
    assert torch.equal(trainer.model.w, state_dict["w"])


def test_several_rows_for_each_class_are_warned_of_until_they_are_declared(cfg, plugin, tmp_path):
    """As a cache of some images of each class; nothing but its method can tell."""
    text = plain('{"w": False DECLARED}').replace("torch.full((2,)", "torch.full((2 * len(start),)")
    plugin(text.replace(" DECLARED", ""))
    run_train(cfg("plain", "run", "base"))
    trainer = build_trainer(cfg("plain", "eval", "new"))
    trainer.load_model(tmp_path / "run", epoch=1)
    [warning] = trainer.warnings
    assert "was learned for other classes. If its `scale` has several rows for each class, the result is" in warning
    plugin(text.replace(" DECLARED", ', "scale": False'))
    trainer = build_trainer(cfg("plain", "eval", "new"))
    trainer.load_model(tmp_path / "run", epoch=1)
    assert trainer.warnings == []
    plugin(text.replace(" DECLARED", ', "scale": True'))
    with pytest.raises(ValueError, match=f"`scale`, learned for each of {re.escape(BASE)}"):
        build_trainer(cfg("plain", "eval", "new")).load_model(tmp_path / "run", epoch=1)


class TestDassl:
    def test_a_file_that_copies_its_weights_itself_is_refused_too(self, cfg, plugin, tmp_path):
        plugin(dassl(COPIES))
        run_train(cfg("dassl", "run", "base"))
        with pytest.raises(ValueError, match=re.escape(f"`w`, `scale`, learned for each of {BASE}, but Folder")):
            build_trainer(cfg("dassl", "eval", "new")).load_model(tmp_path / "run", epoch=1)

    def test_what_a_file_leaves_out_is_not_missed(self, cfg, plugin, tmp_path):
        plugin(dassl(SCALE_ALONE, '{"scale": False}'))
        run_train(cfg("dassl", "run", "base"))
        trainer = build_trainer(cfg("dassl", "eval", "new"))
        own = trainer.model.w.clone()
        trainer.load_model(tmp_path / "run", epoch=1)
        assert torch.equal(trainer.model.w, own)


def without_names(folder):
    """Removes the class names from a checkpoint, as the original's has none."""
    path = folder / "weights/model.pth.tar-1"
    checkpoint = load_checkpoint(path)
    del checkpoint["classnames"]
    torch.save(checkpoint, path)


@pytest.mark.parametrize("method", ["plain", "dassl"])
def test_without_names_the_results_are_marked(cfg, plugin, tmp_path, method):
    plugin(METHODS[method][1])
    run_train(cfg(method, "run", "base"))
    without_names(tmp_path / "run")
    pairs = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "run"), "RUN.LOAD_EPOCH", 1)
    run_train(cfg(method, "eval", "new", *pairs))
    warnings = json.loads((tmp_path / "eval/results.json").read_text())["warnings"]
    [warning] = [text for text in warnings if "class names" in text]
    assert warning.startswith(
        "The checkpoint model.pth.tar-1 does not say its class names, and it holds `w`, `scale`, l"
    )
    assert f"Warning: {warning}" in (tmp_path / "eval/log.txt").read_text()


class TestOriginalsContexts:
    """A checkpoint of the original holds no class names, but their embedded tokens."""

    @pytest.fixture
    def make(self, register, tiny_files, data, tmp_path):
        """CoOp with a context for each of 1,000 classes, whose names are one token each."""
        words = [word.removesuffix(END_OF_WORD) for word in tokenizer().encoder if word.endswith(END_OF_WORD)]
        names = [word for word in words if word.isalpha() and word.isascii() and len(word) > 2][:1000]

        class Many(DatasetBase):
            def __init__(self, cfg):
                image = str(data / "test/face/0.png")
                super().__init__(test=[Datum(image, label, classname=name) for label, name in enumerate(names)])

        register(DATASET_REGISTRY, Many)
        pairs = ("TRAINER.COOP.CSC", True, "DATASET.NAME", "Many", "RUN.EVAL_ONLY", True)
        return lambda: build_trainer(tiny_cfg(data, tiny_files[1]["vit"], tmp_path / "run", *pairs))

    def save(self, trainer, folder, change):
        own = trainer.model.prompt_learner.state_dict()
        changed = {name: change(name, value.clone()) for name, value in own.items()}
        save_checkpoint({"state_dict": changed, "epoch": 1}, folder / "prompt_learner")
        return folder

    def test_two_swapped_names_of_one_token_are_noticed(self, make, tmp_path):
        def swap(name, value):
            value[[3, 700]] = value[[700, 3]]
            return value

        trainer = make()
        folder = self.save(trainer, tmp_path / "original", swap)
        with pytest.raises(ValueError, match=r"`token_suffix` is that of other classes.*\(2 of 1000 rows") as error:
            trainer.load_model(folder, epoch=1)
        assert f"that of {trainer.dm.dataset.classnames[3]} among them" in str(error.value)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_the_same_names_are_the_same_in_every_precision(self, make, tmp_path, dtype):
        trainer = make()
        folder = self.save(trainer, tmp_path / "original", lambda name, x: x if name == "ctx" else x.to(dtype))
        trainer.load_model(folder, epoch=1)
        assert trainer.warnings == []


class TestInitWeights:
    def start(self, tmp_path, name="weights"):
        return ("MODEL.INIT_WEIGHTS", str(tmp_path / "run" / name / "model.pth.tar-1"))

    def test_contexts_of_other_classes_are_no_start(self, cfg, tmp_path):
        run_train(cfg("CoOp", "run", "base"))
        with pytest.raises(ValueError, match=re.escape(f"`ctx`, learned for each of {BASE}, but Folder has {NEW}.")):
            build_trainer(cfg("CoOp", "start", "new", *self.start(tmp_path, "prompt_learner")))

    def test_what_all_classes_share_is_started_alone(self, cfg, plugin, tmp_path, caplog):
        plugin(plain('{"scale": False}'))
        run_train(cfg("plain", "run", "base"))
        state_dict = load_checkpoint(tmp_path / "run/weights/model.pth.tar-1")["state_dict"]
        own = build_trainer(cfg("plain", "other", "new")).model.w
        trainer = build_trainer(cfg("plain", "start", "new", *self.start(tmp_path)))
        assert torch.equal(trainer.model.scale, state_dict["scale"]) and torch.equal(trainer.model.w, own)
        assert "was learned for other classes: not taken from it is `w`" in caplog.text

    def test_known_classes_start_from_their_rows(self, cfg, plugin, tmp_path):
        plugin(plain())
        run_train(cfg("plain", "run", "all"))
        trainer = build_trainer(cfg("plain", "start", "new", *self.start(tmp_path)))
        assert torch.equal(trainer.model.w, load_checkpoint(self.start(tmp_path)[1])["state_dict"]["w"][2:])

    def test_a_file_written_for_the_original_is_warned_of(self, cfg, plugin, tmp_path):
        plugin(dassl())
        run_train(cfg("dassl", "run", "base"))
        results = run_train(cfg("dassl", "start", "new", *self.start(tmp_path)))
        [warning] = [text for text in results["warnings"] if "INIT_WEIGHTS" in text]
        assert "was learned for other classes, and weights has started each class from one of them" in warning
        assert build_trainer(cfg("dassl", "same", "base", *self.start(tmp_path))).warnings == []

    def test_a_file_of_a_form_that_the_method_alone_reads_is_no_error(self, cfg, plugin, tmp_path):
        reads = "self.model.load_state_dict(torch.load(self.cfg.MODEL.INIT_WEIGHTS))"
        plugin(dassl().replace("load_pretrained_weights(self.model, self.cfg.MODEL.INIT_WEIGHTS)", reads))
        learned = build_trainer(cfg("dassl", "own", "base")).model.state_dict()
        torch.save({name: value + 1 for name, value in learned.items()}, tmp_path / "bare.pth")
        trainer = build_trainer(cfg("dassl", "start", "base", "MODEL.INIT_WEIGHTS", str(tmp_path / "bare.pth")))
        assert torch.equal(trainer.model.w, learned["w"] + 1) and trainer.warnings == []
