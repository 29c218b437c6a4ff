"""TPT: views, the choice among them and the tuned context against the method done image by image, in float64."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

import export
from clip import build_model
from engine.data.samplers import mix_seeds
from inference.classifier import Classifier
from tests.support.naive import naive_features
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg
from tests.support.tolerance import assert_near, distance
from tests.trainers.on_features.by_hand import texts_of, unit

N_VIEWS, N_IMAGES = 20, 5
TPT = ("TRAINER.NAME", "TPT", "RUN.EVAL_ONLY", True, "TRAINER.TPT.PREC", "fp32", "TRAINER.TPT.N_VIEWS", N_VIEWS)
TPT += ("INPUT.INTERPOLATION", "bicubic")
TO_TENSOR = (T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # as INPUT has it
plain_view = T.Compose([T.Resize(32, T.InterpolationMode.BICUBIC), T.CenterCrop(32), *TO_TENSOR])
crop_view = T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), *TO_TENSOR])  # bilinear


@pytest.fixture
def make_cfg(tiny_files, tmp_path):
    return lambda *pairs: tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", *TPT, *pairs)


@pytest.fixture
def make(make_cfg):
    """Builds the trainer; KEY, VALUE, ... change its config."""
    return lambda *pairs: build_trainer(make_cfg(*pairs))


@pytest.fixture(scope="module")
def paths(tiny_files):
    """The test images' files, 40 x 36 px each."""
    return sorted((tiny_files[0] / "test").glob("*/*.png"))


@pytest.fixture(scope="module")
def images(paths):
    return [Image.open(path).convert("RGB") for path in paths[:N_IMAGES]]


def views_of(trainer, images):
    return torch.stack([trainer.test_transform(image) for image in images])  # (B, V, 3, H, W)


def start_of(trainer):
    return trainer.model.prompt_learner.ctx


@cache
def exact_clip():
    return build_model(golden_state_dict("vit")).requires_grad_(False).double()


def by_hand(start, views, *, position="end", share=0.1, lr=5e-3, n_steps=1):
    """The logits (C,) float64 of one image with views (V, 3, H, W), whose context starts at `start` (M, D)."""
    clip_model = exact_clip()
    features = unit(clip_model.encode_image(views.double()))
    ctx, chosen = start.double().clone().requires_grad_(), None
    optim = torch.optim.AdamW([ctx], lr=lr)

    def logits():
        return clip_model.logit_scale.exp() * features @ unit(naive_features(clip_model, ctx, CLASSES, position)).T

    for _ in range(n_steps):
        p = logits().softmax(dim=1)
        if chosen is None:
            entropies = [-sum(value * np.log(value) for value in row) for row in p.detach().numpy()]
            chosen = np.argsort(entropies)[: int(share * len(views))].tolist()
        mean = p[chosen].mean(dim=0)
        optim.zero_grad()
        (-(mean * mean.log()).sum()).backward()
        optim.step()
    return logits()[0].detach()


class TestTuning:
    @pytest.mark.parametrize(
        ("position", "n_steps", "share", "lr", "chunk_rows"),
        [("end", 1, 0.1, 5e-3, 0), ("middle", 3, 0.26, 2e-2, 40), ("front", 1, 0.1, 5e-3, 7)],
        ids=["all images", "few images", "few classes"],
    )
    def test_a_batch_is_its_images_one_by_one(self, make, images, position, n_steps, share, lr, chunk_rows):
        options = {"position": position, "n_steps": n_steps, "share": share, "lr": lr}
        names = ("CLASS_TOKEN_POSITION", "N_STEPS", "CONFIDENT_SHARE", "LR", "CHUNK_ROWS")
        values = zip(names, (*options.values(), chunk_rows))
        trainer = make(*(word for name, value in values for word in (f"TRAINER.TPT.{name}", value)))
        views = views_of(trainer, images)
        expected = torch.stack([by_hand(start_of(trainer), own, **options) for own in views])
        with torch.no_grad():
            assert_near(trainer.model_inference(views), expected)
        untuned = torch.stack([by_hand(start_of(trainer), own, **{**options, "lr": 0}) for own in views])
        assert distance(untuned, expected) > 0.03

    def test_without_a_step_it_is_zero_shot_clip_on_the_plain_view(self, make, images):
        trainer = make("TRAINER.TPT.LR", 0.0)
        plain = torch.stack([plain_view(image) for image in images])
        features = unit(exact_clip().encode_image(plain.double()))
        expected = exact_clip().logit_scale.exp() * features @ unit(texts_of("a photo of a {}.")[0]).T
        assert_near(trainer.model_inference(views_of(trainer, images)), expected)

    def test_bf16_is_near_float32(self, make, images):
        exact, half = make(), make("TRAINER.TPT.PREC", "bf16")
        views = views_of(exact, images)
        assert_near(half.model_inference(views), exact.model_inference(views), 4 * torch.finfo(torch.bfloat16).eps)

    def test_it_starts_from_the_context_of_a_coop_run(self, make, make_cfg, images, tmp_path):
        coop = build_trainer(
            make_cfg("TRAINER.NAME", "CoOp", "RUN.EVAL_ONLY", False, "OUTPUT_DIR", str(tmp_path / "c"))
        )
        coop.save_model(2)
        trainer = make()
        trainer.load_model(tmp_path / "c", epoch=2)  # two vectors, where four words are the default
        learned = coop.model.prompt_learner.ctx.detach()
        views = views_of(trainer, images)
        expected = torch.stack([by_hand(learned, own) for own in views])
        assert_near(trainer.model_inference(views), expected)


class TestViews:
    def test_the_first_is_plain_the_others_are_drawn_by_seed_and_pixels(self, make, images):
        trainer = make("SEED", 7)
        digest = int(hashlib.blake2b(images[0].tobytes(), digest_size=8).hexdigest(), 16)
        with torch.random.fork_rng():
            torch.manual_seed(mix_seeds(7, 40, 36, digest))
            expected = [plain_view(images[0]), *(crop_view(images[0]) for _ in range(N_VIEWS - 1))]
        state = torch.random.get_rng_state()
        assert torch.equal(trainer.test_transform(images[0]), torch.stack(expected))
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_neither_workers_nor_batches_change_them(self, make, images):
        trainer = make("DATALOADER.NUM_WORKERS", 2, "DATALOADER.TEST.BATCH_SIZE", 2)
        found = torch.cat([batch["img"] for batch in trainer.test_loader])
        assert torch.equal(found[:N_IMAGES], views_of(trainer, images))

    def test_nor_do_threads(self, make, images):
        trainer = make()
        expected = [trainer.test_transform(image) for image in images]
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(trainer.test_transform, images * 8)
        assert all(torch.equal(one, other) for one, other in zip(found, expected * 8, strict=True))


def test_an_array_alone_is_answered_as_its_file_among_others(make_cfg, images, paths):
    cfg = make_cfg()
    run_train(cfg)
    classifier = Classifier.from_run(cfg.OUTPUT_DIR)
    together = classifier.logits(paths)[:N_IMAGES]
    assert_near(together, torch.cat([classifier.logits(np.asarray(image)) for image in images]))


class TestRefused:
    def test_images_without_views(self, make):
        with pytest.raises(ValueError, match=r"images \(6, 3, 32, 32\), expected their views \(B, V, 3, H, W\)"):
            make().model_inference(golden_images("vit"))

    @pytest.mark.parametrize(
        ("kind", "message"),
        [("classifier", "its classes depend on the image"), ("onnx", "more of an image than one array of pixels")],
    )
    def test_export(self, make_cfg, tmp_path, capsys, kind, message):
        if kind == "onnx":
            pytest.importorskip("onnxscript", reason="the extra `export`")
        cfg = make_cfg()
        run_train(cfg)
        assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "out"), "--format", kind]) == 1
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("TRAINER.TPT.CONFIDENT_SHARE", 0.04, "CONFIDENT_SHARE is 0.04 of 20 views (N_VIEWS), which is 0; it must"),
            ("TRAINER.TPT.CONFIDENT_SHARE", 1.1, "CONFIDENT_SHARE is 1.1 of 20 views (N_VIEWS), which is 22; it must"),
            ("TRAINER.TPT.LR", -0.1, "LR is -0.1; it must be 0 (the context stays as it starts) or more."),
            ("TRAINER.TPT.N_STEPS", 0, "N_STEPS is 0; it must be at least 1."),
            ("INPUT.TRANSFORMS", ("normalize",), "INPUT makes no random_resized_crop, so the views of an image would"),
            ("INPUT.NO_TRANSFORM", True, "INPUT makes no random_resized_crop, so the views of an image would"),
        ],
    )
    def test_options(self, make_cfg, key, value, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            make_cfg(key, value)
