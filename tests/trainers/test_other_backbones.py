"""Models of other libraries through the whole of a run: their preprocessing, their tokens, what is refused."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import clip.clip
import export
import interpret_prompt
import train
from engine.run.folder import read_config, read_results
from inference.classifier import Classifier
from tests.resume import stopping
from tests.support.backbones.made_up import FACTS, LENGTH, PREPROCESSING, MadeUp, find_made_up
from tests.support.tiny_run import CLASSES, build_trainer, train_flags
from tests.support.tolerance import assert_near
from trainers.base import TextEncoder
from trainers.context import build_prompt_encoder
from trainers.same_prompts import find_twins

OPEN, ALL = ("causal", "not-causal"), tuple(PREPROCESSING)
PAIRS = ("USE_CUDA", "False", "FEATURES.DIR", "", "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0")
PREC = {"CoOp": "COOP", "CoCoOp": "COCOOP", "KgCoOp": "KGCOOP", "ProGrad": "PROGRAD", "LinearProbe": "LINEAR_PROBE"}
PREC |= {"TCP": "TCP"}
PREC |= {"TaskRes": "TASKRES", "CLIPAdapter": "CLIP_ADAPTER", "TipAdapterF": "TIP_ADAPTER"}
PREC |= {"CLAP": "CLAP", "CrossModal": "CROSS_MODAL", "GDA": "GDA", "LPPlusPlus": "LP_PLUS_PLUS"}
PREC |= {"DeepLanguage": "DEEP_LANGUAGE", "MaPLe": "MAPLE", "CLIPLoRA": "CLIPLORA"}
RUNS = [(trainer, kind) for trainer in ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", "TCP") for kind in OPEN]
RUNS += [(trainer, kind) for trainer in ("LinearProbe", "ZeroshotCLIP", "ZeroshotCLIP2") for kind in ALL]
RUNS += [("TaskRes", "causal"), ("CLIPAdapter", "not-causal"), *(("TipAdapterF", kind) for kind in ALL)]
RUNS += [("CLAP", "not-causal"), ("CrossModal", "causal"), ("GDA", "causal"), ("LPPlusPlus", "not-causal")]
RUNS += [(trainer, kind) for trainer in ("DeepLanguage", "CLIPLoRA") for kind in OPEN]
OF_TEXT = {"DeepLanguage": ("TRAINER.DEEP_LANGUAGE.PROMPT_DEPTH_TEXT", "2")}  # of two blocks
OF_TEXT |= {"CLIPLoRA": ("TRAINER.CLIPLORA.ENCODER", "text")}


@pytest.fixture(autouse=True)
def made_up(tmp_path, monkeypatch):
    """The library is there."""
    for module in ("clip.clip", "clip.nearest_words"):
        monkeypatch.setattr(f"{module}.find_backbone", find_made_up(tmp_path))
    return tmp_path


@pytest.fixture
def argv(tiny_files, tmp_path):
    """argv(kind, trainer, KEY, VALUE, ...): train.py's arguments for a run in tmp_path/run."""

    def argv(kind, trainer="CoOp", *pairs, folder="run"):
        words = [*train_flags(tmp_path, tiny_files[0], f"hf:made-up/{kind}"), f"--trainer={trainer}"]
        words += ["--eval-only"] if trainer.startswith("Zeroshot") else []
        group = PREC.get(trainer, "ZSCLIP")
        own = (f"TRAINER.{group}.PREC", "fp32", *OF_TEXT.get(trainer, ()))
        return [*words, f"--output-dir={tmp_path / folder}", *PAIRS, *own, *pairs]

    return argv


def run(words):
    assert train.main(words) == 0
    folder = next(word.partition("=")[2] for word in words if word.startswith("--output-dir"))
    return read_results(folder)


def pixels(paths, own):
    """Images as `own` says, squashed, by Pillow and numpy."""
    size, mode = (own.size, own.size), {"bilinear": Image.BILINEAR}[own.interpolation]
    images = [np.asarray(Image.open(path).convert("RGB").resize(size, mode)) / 255 for path in paths]
    images = (np.stack(images) - np.array(own.mean)) / np.array(own.std)
    return torch.from_numpy(images).float().permute(0, 3, 1, 2)


@pytest.fixture
def paths(tiny_files):
    """The nine test images, in the order of the test."""
    return sorted((tiny_files[0] / "test").glob("*/*.png"))


@pytest.mark.parametrize(("trainer", "kind"), RUNS)
def test_each_method_trains_predicts_and_exports(argv, paths, tmp_path, trainer, kind):
    results = run(argv(kind, trainer))
    classifier = Classifier.from_run(tmp_path / "run")
    names = classifier(paths).names
    assert sum(name == path.parent.name for name, path in zip(names, paths, strict=True)) == results["correct"]
    assert results["provenance"]["backbone"] == FACTS and len(results["provenance"]["weights_sha256"]) == 64
    assert not [warning for warning in results["warnings"] if "prepared" in warning or "OpenAI" in warning]
    written = export.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    if trainer in ("CoCoOp", "CLIPAdapter"):  # which are more than a few arrays
        assert written == 1
        return
    assert_near(Classifier.from_export(tmp_path / "out").logits(paths), classifier.logits(paths))
    facts = json.loads((tmp_path / "out" / "config.json").read_text())
    assert facts["preprocessing"]["RESIZE"] == PREPROCESSING[kind].resize and facts["backbone_library"] == FACTS


def test_the_image_tower_of_another_library_takes_no_vectors(argv):
    cfg = train.setup_cfg(train.parse_args(argv("causal", "MaPLe")))
    with pytest.raises(
        ValueError, match="MaPLe puts vectors .* the image tower of hf:made-up/causal is a .* DeepLanguage"
    ):
        build_trainer(cfg)


@pytest.mark.parametrize("kind", OPEN)
def test_a_tuned_text_tower_is_one_with_the_changes_in_its_weights(argv, tmp_path, capsys, kind):
    """CLIP-LoRA against the plain towers; no file in OpenAI's layout holds them."""
    run(argv(kind, "CLIPLoRA", "OPTIM.LR", "1.0"))
    learned = torch.load(tmp_path / "run/prompt_learner/model.pth.tar-2", weights_only=True)["state_dict"]
    model = MadeUp(kind, tmp_path).load()
    images = torch.randn(4, 3, *2 * [model.preprocessing.size], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = F.normalize(model.encode_text(model.tokenizer(texts())), dim=-1)
        for i, block in enumerate(model.transformer.resblocks):
            change = [learned[f"text.{i}.{part}.B"] @ learned[f"text.{i}.{part}.A"] for part in "qkv"]
            block.attn.in_proj_weight += torch.cat(change) / 2**0.5
        text = F.normalize(model.encode_text(model.tokenizer(texts())), dim=-1)
        found = Classifier.from_run(tmp_path / "run").trainer.model_inference(images)
        assert_near(found, model.logit_scale.exp() * F.normalize(model.visual(images), dim=-1) @ text.t(), 1e-5)
    assert not torch.allclose(text, before, atol=1e-2)
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "clip"), "--format", "clip"]) == 1
    assert f"hf:made-up/{kind} is not in OpenAI's layout" in capsys.readouterr().err


def texts():
    return [f"a photo of a {name.replace('_', ' ')}." for name in CLASSES]


def test_a_prompt_is_encoded_and_an_image_prepared_as_the_model_was_trained(argv, paths, tmp_path):
    """CoOp on a tower that is not causal, against the whole computation written out."""
    run(argv("not-causal"))
    checkpoint = torch.load(tmp_path / "run/prompt_learner/model.pth.tar-2", weights_only=True)
    model, ctx = MadeUp("not-causal", tmp_path).load(), checkpoint["state_dict"]["ctx"]
    tokens = model.tokenizer([f"x x {name.replace('_', ' ')}." for name in CLASSES])
    prompts = model.token_embedding(tokens)
    prompts[:, :2] = ctx  # there is no start token
    text = F.normalize(model.run_text(prompts, torch.full((3,), tokens.shape[1] - 1)), dim=-1)
    image = F.normalize(model.visual(pixels(paths, model.preprocessing)), dim=-1)
    expected = model.logit_scale.exp() * image @ text.t()
    assert_near(Classifier.from_run(tmp_path / "run").logits(paths), expected, 1e-5)


@pytest.mark.parametrize("csc", [False, True])
def test_ranks_share_the_classes_of_a_tower_that_shares_nothing(argv, monkeypatch, csc):
    cfg = train.setup_cfg(train.parse_args(argv("not-causal", "CoOp", "TRAINER.COOP.CSC", str(csc))))
    cfg.freeze()
    trainer, parts = build_trainer(cfg), []
    assert trainer.smaller_settings()["TRAINER.COOP.CHUNK_ROWS"] == 3 * LENGTH // 2
    monkeypatch.setattr("trainers.context.n_ranks", lambda: 2)
    monkeypatch.setattr("trainers.context.gather_rows", lambda own, n_rows: own)
    for own in (slice(0, 2), slice(2, 3)):
        monkeypatch.setattr("trainers.context.share", lambda n, own=own: own)
        encode = build_prompt_encoder(trainer.clip_model, trainer.model.prompt_learner, shard_classes=True)
        parts.append(encode(trainer.model.prompt_learner.ctx))
    assert_near(torch.cat(parts), trainer.model.encode_prompts(trainer.model.prompt_learner.ctx))


@pytest.mark.parametrize("kind", OPEN)
def test_embedded_texts_are_read_where_the_tower_is(tmp_path, kind):
    """For methods that put their prompts together themselves."""
    model = MadeUp(kind, tmp_path).load()
    tokens = model.tokenizer(["a face.", "the leopard of a friend."])
    assert_near(TextEncoder(model)(model.token_embedding(tokens), tokens), model.encode_text(tokens))


def test_words_alone_make_a_classifier(paths, made_up):
    model = MadeUp("closed", made_up).load()
    image = F.normalize(model.visual(pixels(paths, model.preprocessing)), dim=-1)
    text = F.normalize(model.encode_text(model.tokenizer([f"art of {name}" for name in ("cat", "dog")])), dim=-1)
    classifier = Classifier.zero_shot("hf:made-up/closed", ["cat", "dog"], "art of {}", device="cpu")
    assert_near(classifier.logits(paths), model.logit_scale.exp() * image @ text.t(), 1e-5)


@pytest.mark.parametrize("kind", OPEN)
def test_an_interrupted_run_goes_on_to_the_same_bits(argv, tmp_path, kind):
    def build(folder):
        cfg = train.setup_cfg(train.parse_args(argv(kind, folder=folder)))
        cfg.freeze()
        return build_trainer(cfg)

    whole = build("whole")
    assert stopping.train(whole)
    expected = stopping.ended(whole)
    begun = build("part")
    stopping.before_step(begun, 5, stopping.terminate)  # of 2 x 3
    assert not stopping.train(begun)
    resumed = build("part")
    losses = stopping.before_step(resumed, 99, None)
    assert stopping.train(resumed) and len(losses) == 1
    stopping.assert_same(stopping.ended(resumed), expected)


def test_the_folder_of_a_model_is_found_from_another_folder(argv, tmp_path, paths, monkeypatch):
    home, away = tmp_path / "home", tmp_path / "away"
    for folder in (home / "models/causal", away):
        folder.mkdir(parents=True)
    (home / "models/causal/config.json").touch()
    monkeypatch.chdir(home)
    words = [word for word in argv("causal", "ZeroshotCLIP") if not word.startswith(("--output-dir", "--backbone"))]
    run(["--output-dir=out", "--backbone=hf:models/causal", *words])
    expected = Classifier.from_run("out").logits(paths)
    monkeypatch.chdir(away)
    classifier = Classifier.from_run(home / "out")
    assert torch.equal(classifier.logits(paths), expected)
    assert classifier.trainer.cfg.MODEL.BACKBONE.NAME == f"hf:{home}/models/causal"


def test_a_checkpoint_of_another_backbone_is_told_and_not_gone_on_from(argv, tmp_path, capsys):
    run(argv("causal"))
    other = argv("not-causal", folder="other")
    tested = run(["--eval-only", f"--model-dir={tmp_path / 'run'}", "--load-epoch=2", *other])
    said = "model.pth.tar-2 was trained with 'hf:made-up/causal' and is tested with hf:made-up/not-causal"
    assert [warning for warning in tested["warnings"] if said in warning]
    assert train.main(argv("not-causal")) == 1  # in the folder of the first
    assert "MODEL.BACKBONE.NAME is 'hf:made-up/causal' there" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp", "CLIPLoRA"])
def test_a_closed_text_tower_cannot_be_entered(argv, capsys, trainer):
    assert train.main(argv("closed", trainer)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "Error: The text tower of this backbone cannot be entered: it reads a text in its own way. Use ZeroshotCLIP, "
        "ZeroshotCLIP2 or LinearProbe, or name another MODEL.BACKBONE.NAME."
    )


class TestPreprocessing:
    def test_it_beats_the_yaml_and_only_pairs_beat_it(self, argv, tmp_path, capsys):
        results = run(argv("not-causal", "ZeroshotCLIP", "INPUT.PIXEL_STD", "[1.0, 1.0, 1.0]"))
        node = read_config(tmp_path / "run").INPUT  # the YAML says (32, 32)
        assert (node.SIZE, node.INTERPOLATION, node.RESIZE) == ((24, 24), "bilinear", "squash")
        assert (node.PIXEL_MEAN, node.PIXEL_STD) == ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
        assert [warning for warning in results["warnings"] if "prepared" in warning] == [
            "Images are prepared otherwise than hf:made-up/not-causal was trained to see them, which lowers its "
            "accuracy: INPUT.PIXEL_STD is [1.0, 1.0, 1.0] instead of [0.5, 0.5, 0.5]. Unless that is meant, set none "
            "of these keys."
        ]
        run(argv("not-causal", "ZeroshotCLIP", "INPUT.PIXEL_STD", "[1.0, 1.0, 1.0]"))
        assert "Done already" in capsys.readouterr().out  # the same command is the same run

    def test_another_size_is_refused(self, argv, capsys):
        assert train.main(argv("causal", "ZeroshotCLIP", "INPUT.SIZE", "(64, 64)")) == 1
        message = "Error: INPUT.SIZE is (64, 64), but the resolution of hf:made-up/causal is (32, 32). Leave it out."
        assert capsys.readouterr().err.splitlines()[-1] == message

    def test_a_name_without_a_model_is_said_with_all_other_errors(self, argv):
        with pytest.raises(ValueError, match="The config has 2 errors") as caught:
            train.setup_cfg(train.parse_args(argv("no-such", "CoOp", "TRAINER.COOP.N_CTX", "0")))
        assert "There is no hf:made-up/no-such." in str(caught.value)


def test_half_precision_converts_the_whole_towers(argv, tmp_path):
    cfg = train.setup_cfg(train.parse_args(argv("not-causal", "CoOp", "TRAINER.COOP.PREC", "bf16")))
    cfg.freeze()
    trainer = build_trainer(cfg)
    assert {parameter.dtype for parameter in trainer.clip_model.visual.parameters()} == {torch.bfloat16}
    trainer.train()
    text = trainer.model.text_features().float()
    towers = MadeUp("not-causal", tmp_path).load()
    learner = trainer.model.prompt_learner
    prompts = towers.token_embedding(learner.layout.tokens)
    prompts[:, :2] = learner.ctx.detach().cpu()
    expected = F.normalize(towers.run_text(prompts, torch.full((3,), prompts.shape[1] - 1)), dim=-1)
    assert_near(F.normalize(text, dim=-1), expected, 0.03)


def test_two_names_are_one_prompt_by_the_models_own_tokens(tmp_path):
    names = ["it's", "it ' s"]
    assert find_twins(names) == []
    assert find_twins(names, MadeUp("not-causal", tmp_path).load()) == [(0, 1)]


def test_words_of_other_tokens_are_not_shown(argv, tmp_path, capsys):
    run(argv("not-causal", "CoOp", "OPTIM.MAX_EPOCH", "1"))
    assert interpret_prompt.main([str(tmp_path / "run"), "2"]) == 1
    assert "hf:made-up/not-causal has other tokens than OpenAI's CLIP" in capsys.readouterr().err
    run(argv("causal", "CoOp", "OPTIM.MAX_EPOCH", "1", folder="other"))
    assert interpret_prompt.main([str(tmp_path / "other"), "2"]) == 0
    assert "vector 2" in capsys.readouterr().out


def test_a_method_that_builds_openais_clip_itself_gets_no_other_models_file():
    with pytest.raises(ValueError, match="hf:made-up/causal is a model of another library"):
        clip.clip._MODELS["hf:made-up/causal"]
