"""Names of open_clip's models: what each loads, where files come from, and what is said of a wrong one."""

import hashlib
import http.server
import json
import logging
import shutil
import sys
import threading

import huggingface_hub
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from clip import clip
from clip.backbones import find_backbone
from tests.support.backbones.tiny_open_clip import write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("open_clip") / "vit", "vit")


@pytest.fixture
def tiny(folder, monkeypatch):
    """Architectures `tiny` and `tiny-quickgelu` that open_clip knows, and its tag `some_tag` of a hub's repository."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-quickgelu", {**config, "quick_gelu": True})
    images = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
    tag = {"hf_hub": "some/model/", "quick_gelu": True, **images}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"some_tag": tag})
    return folder


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The paths that are asked of a stand-in for the Hugging Face Hub; it has the folder as some/model. No cache."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            asked.append(path)
            return (
                str(folder / path.split("/")[-1]) if path.startswith("/some/model/resolve/") else str(folder / "none")
            )

        def end_headers(self):
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(self.path.split("/")[-1].encode()).hexdigest()}"')
            super().end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(
            huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield asked
        server.shutdown()


def go_offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()


def text_features(model):
    with torch.no_grad():
        return model.encode_text(model.tokenizer(["a photo of a dog."]))


def test_a_tag_is_fetched_once_and_brings_its_activation_and_images(tiny, hub, monkeypatch):
    """The tag was trained with QuickGELU, which the architecture's name does not say."""
    name = "open_clip:tiny/some_tag"
    assert clip.weights_sha256(name) is None
    model, _ = clip.load(name, device="cpu")
    truth = open_clip.create_model("tiny-quickgelu", pretrained=str(tiny / WEIGHTS)).eval()
    torch.testing.assert_close(text_features(model), truth.encode_text(model.tokenizer(["a photo of a dog."])))
    assert (model.preprocessing.resize, model.preprocessing.mean) == ("squash", (0.5, 0.5, 0.5))
    facts = find_backbone(name).facts()
    assert facts["revision"] == COMMIT and facts["repository"] == "some/model" and facts["weights"] == "some_tag"
    assert facts["version"] == open_clip.__version__
    go_offline(monkeypatch)
    asked = len(hub)
    assert torch.equal(text_features(clip.load(name, device="cpu")[0]), text_features(model))
    assert len(hub) == asked
    assert clip.weights_sha256(name) == hashlib.sha256((tiny / WEIGHTS).read_bytes()).hexdigest()


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_a_repository_of_the_hub_is_its_config_and_weights_of_one_commit(tiny, hub, monkeypatch, revision):
    name = f"open_clip:hf-hub:some/model{revision}"
    assert find_backbone(name).preprocessing().size == 32
    assert not any(path.endswith(WEIGHTS) for path in hub)
    model, _ = clip.load(name, device="cpu")
    assert torch.equal(text_features(model), text_features(clip.load(f"open_clip:{tiny}", device="cpu")[0]))
    asked = {path for path in hub if path.endswith(WEIGHTS)}
    assert asked == {f"/some/model/resolve/{COMMIT}/{WEIGHTS}"}
    assert find_backbone(name).facts()["revision"] == COMMIT


def test_what_is_not_in_the_cache_is_named_offline(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    go_offline(monkeypatch)
    for name in ("open_clip:tiny/some_tag", "open_clip:hf-hub:some/model"):
        with pytest.raises(OSError, match="some/model could not be fetched") as error:
            clip.load(name, device="cpu")
        assert str(tmp_path / "cache") in str(error.value) and "`hf download some/model`" in str(error.value)


def test_a_file_is_loaded_by_its_architecture_with_a_warning_of_what_it_does_not_say(tiny, tmp_path):
    file = tmp_path / "epoch_1.pt"
    weights = {f"module.{key}": value for key, value in load_file(tiny / WEIGHTS).items()}
    torch.save({"epoch": 1, "state_dict": weights}, file)
    name = f"open_clip:tiny-quickgelu/{file}"
    model, _ = clip.load(name, device="cpu")
    truth = open_clip.create_model("tiny-quickgelu", pretrained=str(file)).eval()
    torch.testing.assert_close(text_features(model), truth.encode_text(model.tokenizer(["a photo of a dog."])))
    assert "tiny-quickgelu, QuickGELU is assumed" in clip.weights_warning(name)
    assert "GELU is assumed, and images are prepared as for" in clip.weights_warning(f"open_clip:tiny/{file}")
    assert find_backbone(f"open_clip:tiny/{file}").preprocessing().resize == "squash"  # as all its tags


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B32/openai", r"no architecture 'ViT-B32'. Did you mean ViT-B-32"),
        ("ViT-B-32/laion2b_s34b", r"no weights 'laion2b_s34b' of ViT-B-32. Did you mean laion2b_s34b_b79k"),
        ("ViT-B-32", r"ViT-B-32 needs a tag, too. It has: openai, "),
        ("ViT-S-32/some", r"no weights 'some' of ViT-S-32. It has none"),
        ("ViT-B-32/no/such.pt", r"no/such.pt is missing"),
        ("{empty}", r"empty has no open_clip_config.json"),
        ("ViT-B-32/{empty}", r"empty has no weights. Put one of these"),
        ("hf-hub:no", r"no could not be fetched"),
        ("hf-hub:", r"no architecture 'hf-hub:'"),
        ("", r"no architecture ''"),  # not the current folder
        ("{empty}/none", r"The folder .*/empty/none is missing"),
        ("{empty}/../file.pt", r"file.pt does not say its architecture. Name it, too"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(name, message, tmp_path, monkeypatch):
    go_offline(monkeypatch)
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "file.pt").touch()
    with pytest.raises((ValueError, OSError), match=message):
        clip.load(f"open_clip:{name.format(empty=empty)}", device="cpu")


def edited(folder, tmp_path, **changes):
    """A copy of a model's folder with other entries in its config."""
    copy = shutil.copytree(folder, tmp_path / "edited")
    config = json.loads((copy / "open_clip_config.json").read_text())
    for part, values in changes.items():
        node = config if part == "preprocess_cfg" else config["model_cfg"]
        node[part] = {**node[part], **values}
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    return copy


def test_images_that_are_padded_or_not_square_are_refused(folder, tmp_path):
    padded = edited(folder, tmp_path / "a", preprocess_cfg={"resize_mode": "longest"})
    wide = edited(folder, tmp_path / "b", vision_cfg={"image_size": [32, 64]})
    for copy in (padded, wide):
        with pytest.raises(ValueError, match="only square images, resized by 'shortest' or 'squash', are supported"):
            find_backbone(f"open_clip:{copy}").preprocessing()


def test_a_folder_whose_config_is_broken_is_named(folder, tmp_path):
    copy = edited(folder, tmp_path)
    for content in ("{", "[]", '{"model_cfg": {"vision_cfg": 1}}'):
        (copy / "open_clip_config.json").write_text(content)
        with pytest.raises(ValueError, match="open_clip_config.json is no config of open_clip"):
            clip.load(f"open_clip:{copy}", device="cpu")


def test_weights_of_another_architecture_are_named_by_what_they_look_like(tiny, tmp_path):
    wider = edited(tiny, tmp_path, text_cfg={"width": 64})
    with pytest.raises(ValueError, match="do not fit") as error:
        clip.load(f"open_clip:{wider}", device="cpu")
    assert "look like open_clip's tiny or tiny-quickgelu" in str(error.value)
    with pytest.raises(ValueError, match="do not fit ViT-B-32") as error:
        clip.load(f"open_clip:ViT-B-32/{tiny}", device="cpu")
    assert "look like open_clip's tiny or tiny-quickgelu" in str(error.value)
    assert "token_embedding.weight of shape (49408, 32)" in str(error.value)


def test_positions_are_not_stretched_to_another_size_in_silence(tiny, tmp_path):
    larger = edited(tiny, tmp_path / "a", vision_cfg={"image_size": 64})
    longer = edited(tiny, tmp_path / "b", text_cfg={"context_length": 20})
    for copy, key in ((larger, "visual.positional_embedding"), (longer, "positional_embedding")):
        with pytest.raises(ValueError, match=f"{key} of shape") as error:
            clip.load(f"open_clip:{copy}", device="cpu")
        assert "such as tiny" in str(error.value)


def test_files_that_are_cut_short_or_hold_code_are_refused(tiny, tmp_path):
    cut, code, archive = tmp_path / "cut.safetensors", tmp_path / "code.pt", tmp_path / "archive.pt"
    cut.write_bytes((tiny / WEIGHTS).read_bytes()[:-100])
    torch.save({"visual": pytest.approx}, code)
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), archive)
    for file, message in ((cut, "cannot be read"), (code, "cannot be read"), (archive, "is a TorchScript archive")):
        with pytest.raises(ValueError, match=rf"{file.name} .*{message}"):
            clip.load(f"open_clip:tiny/{file}", device="cpu")


def test_a_config_cannot_have_a_tokenizer_run_code(tmp_path, monkeypatch):
    """`trust_remote_code` in the config is overruled; a tokenizer of code is refused."""
    folder = write_model(tmp_path / "clipa", "clipa")
    asks = edited(folder, tmp_path, text_cfg={"tokenizer_kwargs": {"trust_remote_code": True}})
    ran = tmp_path / "ran"
    (asks / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (asks / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(OSError, match="The tokenizer 'there' of open_clip"):
        clip.load(f"open_clip:{asks}", device="cpu")
    assert not ran.exists()


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    folder = write_model(tmp_path / "clipa", "clipa")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(OSError, match="The tokenizer 'there' of open_clip:.* could not be loaded"):
        clip.load(f"open_clip:{folder}", device="cpu")


def test_the_root_logger_stays_as_it_was(folder, monkeypatch):
    """open_clip writes to it, and logging gives it a handler then if it has none: our lines would be printed twice."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    clip.load(f"open_clip:{folder}", device="cpu")
    assert logging.getLogger().handlers == []


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[open_clip\]"'):
        clip.load("open_clip:ViT-B-32/openai")
