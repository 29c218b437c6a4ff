"""Folders and repositories of Hugging Face that are refused, and how the hub is asked."""

import hashlib
import json
import shutil
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from clip.backbones import find_backbone
from clip.clip import weights_sha256
from tests.support.backbones.tiny_hf import change, save_clip, save_siglip

SHAS = ("a" * 40, "b" * 40)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory):
    return save_siglip(tmp_path_factory.mktemp("siglip"))


def remove(name, folder):
    (folder / name).unlink()


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def swap_tokenizers(folder):
    import transformers

    vocabulary = {"<|endoftext|>": 0, "<|startoftext|>": 1, "x</w>": 2, "x": 3}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)


def config(**fields):
    return lambda folder: change(folder, "config.json", **fields)


def images(**fields):
    return lambda folder: change(folder, "preprocessor_config.json", **fields)


REFUSED = [
    (partial(remove, "config.json"), "has no config.json"),
    (partial(remove, "model.safetensors"), "has no model.safetensors.*pytorch_model.bin is a pickle"),
    (partial(remove, "preprocessor_config.json"), "has no preprocessor_config.json"),
    (partial(remove, "tokenizer.json"), "has no tokenizer.*merges.txt"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer in .* cannot be read"),
    (lambda folder: (folder / "config.json").write_text("[1]"), "cannot be read as the config"),
    (cut_short, "cannot be read as safetensors.*cut short"),
    (swap_tokenizers, "eos_token_id of the text tower is 49407; the tokenizer ends a text with 0"),
    (config(architectures=["BertModel"], model_type="bert"), "a BertModel with the model_type 'bert'.*CLIPModel"),
    (config(architectures=["CLIPVisionModel"]), "a CLIPVisionModel"),
    (config(auto_map={"AutoModel": "code.Model"}), "auto_map.*nothing of a repository is run"),
    (config(vision_config__image_size=30), "image_size is 30, which patch_size 8 does not divide"),
    (config(vision_config__image_size=40), "prepares images of 32 pixels .* takes 40"),
    (config(vision_config__image_size=[32, 48]), "image_size is .32, 48.*one number"),
    (config(text_config__hidden_size=64, text_config__intermediate_size=50), "do not fit.*another shape text_model"),
    (config(text_config__num_hidden_layers=3), "they lack text_model.encoder.layers.2.*16 in all"),
    (config(text_config__num_hidden_layers=1), "no place for, text_model.encoder.layers.1.*16 in all"),
    (
        config(text_config__num_attention_heads=3),
        "transformers cannot read .*not a multiple of the number of attention heads",
    ),
    (config(text_config__eos_token_id=7), "eos_token_id of the text tower is 7; the tokenizer ends a text with 49407"),
    (images(do_center_crop=False), "do_center_crop False. It must be a shortest edge"),
    (images(crop_size={"height": 24, "width": 24}), "size is .'shortest_edge': 32., crop_size"),
    (images(rescale_factor=1.0), "rescale_factor is 1.0"),
    (images(do_normalize=False, resample=1), "do_normalize is False, resample is 1"),
    (images(image_processor_type="ConvNextImageProcessor"), "names ConvNextImageProcessor"),
    (lambda folder: change(folder, "tokenizer_config.json", padding_side="left"), "pads at the left"),
]


@pytest.mark.parametrize("break_it, message", REFUSED)
def test_what_does_not_belong_together_is_refused(clip_folder, tmp_path, break_it, message):
    folder = shutil.copytree(clip_folder, tmp_path / "copy")
    break_it(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_backbone(f"hf:{folder}").load()


def test_a_siglip_without_its_head_or_with_another_tokenizer_is_refused(siglip_folder, clip_folder, tmp_path):
    folder = shutil.copytree(siglip_folder, tmp_path / "copy")
    (folder / "spiece.model").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(clip_folder / name, folder)
    with pytest.raises(ValueError, match="49408 tokens, the text tower's embedding 80 rows"):
        find_backbone(f"hf:{folder}").load()
    folder = save_siglip(tmp_path / "headless", vision_use_head=False)
    with pytest.raises(ValueError, match="vision_use_head is False"):
        find_backbone(f"hf:{folder}").load()


@pytest.mark.parametrize("rest", ["", "clip-vit", "a/b/c", "a/b@", "a b/c"])
def test_what_names_no_model_is_refused(rest):
    with pytest.raises(ValueError, match="OWNER/NAME@REVISION, or a folder that exists"):
        find_backbone(f"hf:{rest}")


def test_a_folder_that_is_not_there(tmp_path):
    assert weights_sha256(f"hf:{tmp_path / 'none'}") is None
    with pytest.raises(FileNotFoundError, match=f"The folder {tmp_path}/none is missing. {tmp_path} exists"):
        find_backbone(f"hf:{tmp_path / 'none'}").load()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=f"model.safetensors is a file. .* hf:{tmp_path}.$"):
        find_backbone(f"hf:{tmp_path}/model.safetensors")


@pytest.mark.parametrize("package", ["transformers", "huggingface_hub", "sentencepiece"])
def test_a_missing_library_says_which_extra_to_install(clip_folder, monkeypatch, package):
    def read(*args, **options):
        raise ImportError("requires the SentencePiece library")

    if package == "sentencepiece":  # which the library imports where a tokenizer needs it
        monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", read)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[hf\]"'):
        find_backbone("hf:some/clip" if package == "huggingface_hub" else f"hf:{clip_folder}").load()


class Hub(BaseHTTPRequestHandler):
    """A hub with the repository some/clip, whose main branch is at SHAS[0] until `main` is set."""

    folder: Path
    main = SHAS[0]
    asked: list[str] = []

    def do_GET(self):
        path = self.path.split("?")[0]
        sha = self.main if "/main" in path else next((sha for sha in SHAS if sha in path), "")
        content = None
        if path.startswith("/api/models/some/clip/revision/"):
            content = json.dumps({"id": "some/clip", "sha": sha, "siblings": [], "tags": [], "private": False}).encode()
        elif path.startswith("/api/models/some/clip/tree/"):
            files = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name} for p in self.files()]
            content = json.dumps(files).encode()
        elif path.startswith("/some/clip/resolve/"):
            self.asked.append(f"{self.command} {Path(path).name}")
            content = (self.folder / Path(path).name).read_bytes()
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", sha)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET

    def files(self):
        return sorted(self.folder.iterdir())

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(clip_folder, tmp_path, monkeypatch):
    """A loopback server that stands for the hub, with an empty cache."""
    from huggingface_hub import constants

    handler = type("Handler", (Hub,), {"folder": clip_folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler
    server.shutdown()
    server.server_close()


def test_a_repository_is_fetched_once_and_stays_at_its_commit(hub, monkeypatch):
    from huggingface_hub import constants

    name, asked = "hf:some/clip", []
    assert weights_sha256(name) is None and "version" in find_backbone(name).facts()
    assert find_backbone(name).preprocessing().size == 32
    assert not any("safetensors" in file for file in hub.asked)
    find_backbone(name).load()
    assert "GET model.safetensors" in hub.asked
    digests = [hashlib.sha256((hub.folder / file).read_bytes()) for file in ("model.safetensors", "config.json")]
    assert weights_sha256(name) == hashlib.sha256("".join(x.hexdigest() for x in digests).encode()).hexdigest()
    hub.main, asked = SHAS[1], list(hub.asked)
    assert find_backbone(name).facts()["revision"] == SHAS[0]
    find_backbone(name).load()
    assert hub.asked == asked
    assert weights_sha256(f"{name}@{SHAS[1]}") is None
    find_backbone(f"{name}@{SHAS[1]}").load()
    assert find_backbone(f"{name}@{SHAS[1]}").facts()["revision"] == SHAS[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    find_backbone(name).load()
    with pytest.raises(OSError, match="some/other could not be fetched.*hf download some/other"):
        find_backbone("hf:some/other").load()


def test_a_repository_that_does_not_exist(hub):
    with pytest.raises(OSError, match="no/model could not be fetched .*404.* looked for in the cache"):
        find_backbone("hf:no/model").load()
