"""interpret_prompt.py against distances laid out by hand, on the small golden CLIPs and on the CLIP of shapes."""

import hashlib
import io
import json
import math

import pytest
import torch

from clip.clip import _MODELS, tokenizer
from clip.nearest_words import nearest_words, read_embedding, word_of
from interpret_prompt import main
from tests.clip.test_load import save_torchscript
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import build_trainer, tiny_cfg
from tests.support.tolerance import EPS

ORIGINAL_LOG = """MODEL:
  BACKBONE:
    NAME: {}
    PRETRAINED: True
  HEAD:
    ACTIVATION: relu
    NAME:{}
OPTIM:
  NAME: sgd
"""


def token_of(word):
    (token,) = tokenizer().encode(word)
    return token


def near(*words, embedding=None, distance=0.25):
    """A context vector for each word, at this distance from the word's row of the golden CLIP: (M, D)."""
    rows = golden_state_dict("vit")["token_embedding.weight"] if embedding is None else embedding
    ctx = torch.stack([rows[token_of(word)] for word in words]).clone()
    ctx[:, 3] += distance
    return ctx


def save(path, ctx, **entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {"ctx": ctx}, "epoch": 50, **entries}, path)
    return path


def words_of(call, *args):
    """The nearest words, one for each vector, of a call that succeeds."""
    code, out, error = call(main, *args, "--json")
    assert (code, error) == (0, "")
    return [vector["words"][0]["word"] for vector in json.loads(out)["vectors"]]


@pytest.fixture
def vit(tiny_files):
    return tiny_files[1]["vit"]


def test_nearest_rows_are_those_of_a_naive_loop():
    generator = torch.Generator().manual_seed(0)
    ctx = torch.randn(300, 5, generator=generator)  # more than are compared at once
    embedding = torch.randn(11, 5, generator=generator)
    embedding[4] = 0
    distances, tokens = nearest_words(ctx, embedding, 3)
    for m, vector in enumerate(ctx.tolist()):
        naive = sorted((math.dist(vector, row), i) for i, row in enumerate(embedding.tolist()) if i != 4)[:3]
        assert tokens[m].tolist() == [i for _, i in naive]
        expected = [distance for distance, _ in naive]  # float64, then rounded
        assert distances[m].tolist() == pytest.approx(expected, rel=EPS)


def test_half_precision_is_compared_in_float32():
    embedding = torch.tensor([[1000.0, 0.0], [1000.0, 3.0]], dtype=torch.float16)
    distances, tokens = nearest_words(torch.tensor([[999.0, 4.0]], dtype=torch.float16), embedding, 2)
    assert distances.dtype == torch.float32
    assert distances[0].tolist() == pytest.approx([math.sqrt(2), math.sqrt(17)], rel=EPS)
    assert tokens[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    "symbol, word",
    [
        ("photo</w>", "photo"),
        ("stri", "stri…"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("ãĥĦ</w>", "ツ"),
        ("ðŁĳı</w>", "👏"),
        ("ð", "\\xf0…"),  # the first byte of four
        ("âģ", "\\xe2\\x81…"),  # two of three
        ("ï¸ı</w>", "\\ufe0f"),  # a mark that stands on a character
        ("Ń</w>", "\\xad"),
        ("Ġ", "\\x20…"),
    ],
)
def test_words_can_be_read(symbol, word):
    assert word_of(tokenizer().encoder[symbol]) == word


def test_report(tmp_path, call, vit):
    path, out = save(tmp_path / "model.pth.tar-50", near("photo", "cat")), tmp_path / "words.json"
    text = f"{path} ({vit}, epoch 50)\n\nvector 1\n  0.2500  photo\n\nvector 2\n  0.2500  cat\n"
    assert call(main, path, 1, "--backbone", vit) == (0, text, "")
    assert call(main, path, 2, "--backbone", vit, "--json", "--output", out) == (0, "", "")
    report = json.loads(out.read_text(encoding="utf-8"))
    vector, _ = report.pop("vectors")
    assert report == {"checkpoint": str(path), "backbone": str(vit), "epoch": 50}
    assert vector["vector"] == 1 and len(vector["words"]) == 2
    nearest = {"word": "photo", "token": token_of("photo"), "distance": pytest.approx(0.25, rel=10 * EPS)}
    assert vector["words"][0] == nearest
    assert vector["words"][1]["distance"] > 0.25


def test_a_run_as_training_leaves_it(tmp_path, call, tiny_files):
    data, clips = tiny_files
    pairs = ("TRAINER.COOP.CTX_INIT", "a photo of a", "TRAINER.COOP.N_CTX", 4)
    trainer = build_trainer(tiny_cfg(data, clips["vit"], tmp_path, *pairs))
    trainer.save_model(0)
    (tmp_path / "config.yaml").write_text(trainer.cfg.dump())
    for path in (tmp_path, tmp_path / "prompt_learner", tmp_path / "prompt_learner" / "model.pth.tar-0"):
        assert words_of(call, path, 1) == ["a", "photo", "of", "a"]
    assert "  0.0000  photo\n" in call(main, tmp_path, 1)[1]


@pytest.mark.parametrize("log", [ORIGINAL_LOG.format("{}", ""), "Seed: 1\nLoading CLIP (backbone: {})\n"])
def test_backbone_from_the_log(tmp_path, call, vit, log):
    save(tmp_path / "prompt_learner" / "model.pth.tar-50", near("photo"))
    (tmp_path / "log.txt").write_text(log.format(vit))
    assert words_of(call, tmp_path, 1) == ["photo"]


def test_the_config_says_the_backbone_before_the_log_and_the_flag_before_both(tmp_path, call, vit):
    path = save(tmp_path / "prompt_learner" / "model.pth.tar-50", near("photo"))
    (tmp_path / "log.txt").write_text("Loading CLIP (backbone: nothing)\n")
    (tmp_path / "config.yaml").write_text(f"MODEL:\n  BACKBONE:\n    NAME: {vit}\n")
    assert words_of(call, path, 1) == ["photo"]
    (tmp_path / "config.yaml").write_text("MODEL:\n  BACKBONE:\n    NAME: nothing\n")
    assert words_of(call, path, 1, "--backbone", vit) == ["photo"]


def test_a_program_is_opened_if_the_user_names_it_or_openai_published_it(tmp_path, call, vit, monkeypatch):
    path = save(tmp_path / "prompt_learner" / "model.pth.tar-50", near("photo"))
    program = tmp_path / "clip.pt"
    save_torchscript(program)
    (tmp_path / "config.yaml").write_text(f"MODEL:\n  BACKBONE:\n    NAME: {program}\n")
    assert call(main, path, 1) == (
        1,
        "",
        f"Error: {program}, which the run's files name, is a TorchScript archive, and an archive is a "
        f"program. Only a state dict is read unasked. If you trust it, name it yourself: --backbone {program}\n",
    )
    assert words_of(call, path, 1, "--backbone", program) == ["photo"]
    monkeypatch.setitem(_MODELS, "RN50", f"https://openai/{hashlib.sha256(program.read_bytes()).hexdigest()}/RN50.pt")
    assert words_of(call, path, 1) == ["photo"]


def test_class_specific_contexts(tmp_path, call, vit):
    ctx = torch.stack([near("photo", "cat"), near("dog", "red")])
    path = save(tmp_path / "model.pth.tar-50", ctx, classnames=["face", "wine_bottle"])
    report = json.loads(call(main, path, 1, "--backbone", vit, "--json")[1])
    found = [(v["class"], v["vector"], v["words"][0]["word"]) for v in report["vectors"]]
    assert found == [("face", 1, "photo"), ("face", 2, "cat"), ("wine_bottle", 1, "dog"), ("wine_bottle", 2, "red")]
    for name in ("wine_bottle", "wine bottle", "1"):
        out = call(main, path, 1, "--backbone", vit, "--class", name)[1]
        expected = "\n\nwine_bottle, vector 1\n  0.2500  dog\n\nwine_bottle, vector 2\n  0.2500  red\n"
        assert out.endswith(f"epoch 50){expected}")
    save(path, ctx)  # the original saved no names
    assert call(main, path, 1, "--backbone", vit, "--class", "1")[1].endswith(expected.replace("wine_bottle", "1"))


@pytest.mark.parametrize(("encoding", "flags"), [("utf-8", ()), ("ascii", ()), ("ascii", ("--json",))])
def test_names_that_an_encoding_has_not(tmp_path, monkeypatch, vit, encoding, flags):
    """Half a character; on a terminal of ASCII also what ends a word that only begins."""
    names = ["\ud800 cat", "猫"]
    path = save(tmp_path / "model", torch.stack([near("photo"), near("dog")]), classnames=names)
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", out)
    assert main([str(path), "1", "--backbone", str(vit), *flags]) == 0
    out.flush()
    text = out.buffer.getvalue().decode(encoding)
    if flags:
        assert [vector["class"] for vector in json.loads(text)["vectors"]] == names
    else:
        assert "'\\ud800 cat', vector 1\n" in text and ("猫" if encoding == "utf-8" else "\\u732b") in text
    assert main([str(path), "1", "--backbone", str(vit), *flags, "--output", str(tmp_path / "words")]) == 0
    assert "\\ud800 cat" in (tmp_path / "words").read_text(encoding="utf-8")


def test_cocoop(tmp_path, call, vit):
    state_dict = {"ctx": near("photo"), "meta_net.linear1.weight": torch.zeros(2, 2)}
    path = save(tmp_path / "model.pth.tar-10", None, state_dict=state_dict)
    note = "CoCoOp: the context without the shift that its Meta-Net adds for each image"
    assert f"\nNote: {note}.\n" in call(main, path, 1, "--backbone", vit)[1]
    assert json.loads(call(main, path, 1, "--backbone", vit, "--json")[1])["note"] == note


def test_tokens_that_shapes_never_trained_are_left_out(tmp_path, call):
    embedding = read_embedding("ViT-T/8-shapes")
    trained = embedding.abs().sum(dim=1) > 0
    ctx = torch.cat([near("photo", "star", embedding=embedding), torch.zeros(1, embedding.shape[1])])
    path = save(tmp_path / "model.pth.tar-12", ctx)
    n_trained = int(trained.sum())
    report = json.loads(call(main, path, n_trained, "--backbone", "ViT-T/8-shapes", "--json")[1])
    found = [[word["token"] for word in vector["words"]] for vector in report["vectors"]]
    assert [tokens[0] for tokens in found[:2]] == [token_of("photo"), token_of("star")]
    assert all(sorted(tokens) == trained.nonzero().squeeze(1).tolist() for tokens in found)
    error = call(main, path, n_trained + 1, "--backbone", "ViT-T/8-shapes")[2]
    rule = f"it must be from 1 to {n_trained}, the number of trained tokens. Change it."
    assert error == f"Error: TOPK is {n_trained + 1}; {rule}\n"


def refused(call, *args):
    """The error of a call."""
    code, out, error = call(main, *args)
    assert (code, out) == (1, "")
    return error.removeprefix("Error: ").removesuffix("\n")


def test_what_does_not_fit_the_context(tmp_path, call, vit):
    path = save(tmp_path / "model.pth.tar-50", near("photo"))
    expected = "TOPK is 0; it must be from 1 to 49408, the number of trained tokens. Change it."
    assert refused(call, path, 0, "--backbone", vit) == expected
    assert refused(call, path, 1, "--class", "face") == (
        "--class is 'face', but all classes share one context. Leave --class out."
    )
    save(path, torch.ones(4, 512))
    assert refused(call, path, 1, "--backbone", vit) == (
        f"The context vectors of {path} are 512 wide, but the token embedding of {vit} is 64 wide. "
        "Name the CLIP that they were trained with: --backbone NAME."
    )
    save(path, torch.stack([near("photo"), near("dog")]), classnames=["face", "leopard"])
    rule = "it must be the name of a class that was learned, or an index from 0 to 1."
    assert refused(call, path, 1, "--class", "leopart") == f"--class is 'leopart'; {rule} Did you mean leopard?"
    assert refused(call, path, 1, "--class", "2") == f"--class is '2'; {rule}"


def test_a_backbone_that_is_unknown_or_no_clip(tmp_path, call):
    path, clip = save(tmp_path / "run" / "model.pth.tar-50", near("photo")), tmp_path / "clip.pt"
    assert refused(call, path, 1) == (
        f"The backbone of {path} is unknown: neither config.yaml nor log.txt of its run names it. "
        "Name the CLIP that it was trained with: --backbone NAME."
    )
    assert refused(call, path, 1, "--backbone", "ViT-B/61").endswith("Did you mean ViT-B/16?")
    for content, found in (
        ({}, "no token_embedding.weight"),
        ({"token_embedding.weight": torch.ones(7, 2)}, "7 tokens"),
    ):
        torch.save(content, clip)
        assert refused(call, path, 1, "--backbone", clip) == (
            f"{clip} has {found}; CLIP has 49,408 tokens. Name a CLIP: --backbone NAME."
        )


def test_paths_that_are_not_there(tmp_path, call):
    assert refused(call, tmp_path / "run" / "seed1", 1) == (
        f"FPATH {tmp_path}/run/seed1 does not exist (the part that does: {tmp_path}). "
        "Name a checkpoint or a run's folder."
    )
    assert refused(call, tmp_path, 1) == (
        f"FPATH is the folder {tmp_path}, which has no prompt_learner/model.pth.tar-EPOCH. "
        "Name a run of CoOp or CoCoOp that has saved a checkpoint."
    )
    out = tmp_path / "there" / "words.txt"
    assert refused(call, tmp_path, 1, "--output", out) == (
        f"--output is {out}, but the folder {tmp_path}/there does not exist. Make it first."
    )


@pytest.mark.parametrize("shape", [None, (0, 64), (0, 2, 64), (2, 0, 64), (2, 0), (64,), ()])
def test_no_context_vectors(tmp_path, call, shape):
    tensors = {"weight": torch.ones(2)} if shape is None else {"ctx": torch.zeros(shape)}
    path = save(tmp_path / "model.pth.tar-50", None, state_dict=tensors)
    found = "the entries weight" if shape is None else f"a `ctx` of shape {shape}"
    assert refused(call, path, 1) == (
        f"The checkpoint {path} has {found}; learned vectors are an entry `ctx` of shape (M, D) or (C, M, D). "
        "Name a checkpoint of CoOp or CoCoOp."
    )
