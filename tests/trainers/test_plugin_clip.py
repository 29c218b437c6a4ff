"""A plug-in with a copy of CLIP's package of its own: it builds its model there, from this project's weights."""

import json
import sys
import urllib.request

import pytest
import torch

import clip.clip
import train
from clip.simple_tokenizer import default_bpe
from engine import TRAINER_REGISTRY
from engine.config.plugins import plugins
from tests.support.other_clip import write_repository
from tests.support.tiny_run import write_images

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*CUDA is not available")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of images, and a plug-in's file in a repository with its own clip/."""
    folder = tmp_path_factory.mktemp("own_clip")
    return write_images(folder / "data"), write_repository(folder / "repository")


@pytest.fixture
def call(files, tmp_path, capsys, monkeypatch):
    """Calls train.py with the embedded CLIP; returns its results and its log."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: pytest.fail("it went to the network"))
    (tmp_path / "data.yaml").write_text("DATASET: {NAME: Folder}\n")
    data, plugin = files

    def run(trainer, *words):
        flags = [f"--trainer={trainer}", f"--root={data}", "--backbone=ViT-T/8-shapes", "--seed=1"]
        flags += [f"--dataset-config-file={tmp_path}/data.yaml", f"--output-dir={tmp_path / trainer}"]
        flags += [f"--plugin={plugin}"] if trainer == "DeepVectors" else []
        keys = "USE_CUDA False INPUT.SIZE (48,48) DATALOADER.NUM_WORKERS 0 DATALOADER.TRAIN_X.BATCH_SIZE 6"
        train.main([*flags, *words, *keys.split(), "FEATURES.DIR", "", "OPTIM.MAX_EPOCH", "1", "OPTIM.LR", "0.1"])
        err = capsys.readouterr().err
        assert "Error" not in err
        return [
            json.loads((tmp_path / trainer / "results.json").read_text()),
            (tmp_path / trainer / "log.txt").read_text(),
        ]

    return run


def test_it_trains_its_own_model_for_two_steps(call, files, tmp_path):
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("clip", "trainers")}
    results, log = call("DeepVectors", "TRAINER.DEEP.N_VECTORS", "2")
    assert (results["n_params"], results["total"]) == (2 * 128, 9)
    assert "epoch [1/1] batch [2/2]" in log
    assert f"CLIP: the plug-in's own, {files[1].parents[1] / 'clip'}\n" in log
    deep = torch.load(tmp_path / "DeepVectors/deep/model.pth.tar-1", weights_only=False)["state_dict"]["visual.deep"]
    assert deep.shape == (2, 128)
    assert {name: sys.modules[name] for name in before} == before
    assert "DeepVectors" not in TRAINER_REGISTRY and not hasattr(
        clip.load("ViT-T/8-shapes", "cpu")[0], "design_details"
    )


def test_without_vectors_it_is_clip(call):
    """The same weights, read through its own loader, in a model of its own: CLIP's answers, by ours."""
    own, _ = call("DeepVectors", "--eval-only")
    ours, _ = call("ZeroshotCLIP", "--eval-only", "TRAINER.ZSCLIP.PREC", "fp32")
    assert (own["accuracy"], own["macro_f1"]) == (ours["accuracy"], ours["macro_f1"])


def test_weights_that_ours_knows_come_from_our_cache_others_by_its_own_way(files, tmp_path):
    with plugins([str(files[1])]):
        own = sys.modules[TRAINER_REGISTRY.get("DeepVectors").__module__].clip
        state_dict = torch.load(own._download(own._MODELS["ViT-T/8-shapes"], tmp_path))
        assert torch.equal(state_dict["visual.proj"], clip.load("ViT-T/8-shapes", "cpu")[0].visual.proj)
        torch.save(state_dict, tmp_path / "mine.pt")
        assert own._download(own._MODELS[str(tmp_path / "mine.pt")]) == str(tmp_path / "mine.pt")
        assert own._MODELS["ViT-B/16"] == clip.clip._MODELS["ViT-B/16"]
        with pytest.raises(OSError, match="fetched https://nowhere.invalid/own.pt"):
            own.load("Own", {})


def test_a_copy_without_the_vocabularys_file_reads_ours(files):
    """Its own is taken where it is there."""
    with plugins([str(files[1])]):
        tokenizer = sys.modules[TRAINER_REGISTRY.get("DeepVectors").__module__]._Tokenizer
        assert tokenizer.__init__.__defaults__ == (default_bpe(),)
        assert tokenizer().encode("a wine bottle .") == clip.clip.tokenizer().encode("a wine bottle.")
