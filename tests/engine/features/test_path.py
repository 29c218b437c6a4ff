"""Whether tests see kept features or pixels: whoever looks at the pixels in a way of its own gets them."""

from pathlib import Path

import pytest
import torch
from torchvision import transforms

from engine.data.manager import DataManager
from engine.data.transforms import build_transform
from engine.registry import TRAINER_REGISTRY
from tests.engine.features.test_reader import train
from tests.support.tiny_run import build_trainer
from tests.support.tolerance import assert_near, distance, rounding_tolerance
from trainers.coop import CoOp, CustomCLIP


class Flipping(CustomCLIP):
    def forward(self, images):
        return super().forward(images.flip(-1))


class FlipsInTests(CoOp):
    def model_inference(self, images):
        return super().model_inference(images.flip(-1))


class FlipsInBatches(CoOp):
    def parse_batch_test(self, batch):
        images, labels = super().parse_batch_test(batch)
        return images.flip(-1), labels


class FlipsInTheModel(CoOp):
    def prompted_clip(self, clip_model, classnames, **changes):
        return Flipping(clip_model, super().prompted_clip(clip_model, classnames, **changes).prompt_learner)


class FlipsWhileTraining(CoOp):
    def parse_batch_train(self, batch):
        images, labels = super().parse_batch_train(batch)
        return images.flip(-1), labels


class StepsItself(CoOp):
    def forward_backward(self, batch):
        images, labels = self.parse_batch_train(batch)
        loss = torch.nn.functional.cross_entropy(self.model(images), labels)
        self.model_backward_and_update(loss)
        return {"loss": loss.detach()}


class TrainsTheTower(CoOp):
    def build_learner(self, **changes):
        super().build_learner(**changes)
        self.model.image_encoder.conv1.requires_grad_(True)


@pytest.fixture
def use(register):
    """use(a trainer): it takes CoOp's place."""
    return lambda trainer: register(TRAINER_REGISTRY, trainer, "CoOp")


@pytest.mark.parametrize("method", [FlipsInTests, FlipsInBatches, FlipsInTheModel])
def test_what_reads_the_pixels_in_its_own_way_gets_them(cfg, use, method):
    build_trainer(cfg()).test()  # whose features are kept
    use(method)
    trainer = build_trainer(cfg())
    with torch.no_grad():
        [logits, *_] = [logits for logits, _ in trainer.predictions("test")]
        flipped = next(iter(trainer.test_loader))["img"].flip(-1)
        expected = trainer.model.classify(trainer.clip_model.encode_image(flipped).float())
    assert_near(logits, expected)


def test_features_of_a_tower_that_changes_are_not_kept(cfg, use):
    use(TrainsTheTower)
    trainer = build_trainer(cfg())
    trainer.model.image_encoder.conv1.weight.data *= 2.0
    with torch.no_grad():
        [logits, *_] = [logits for logits, _ in trainer.predictions("test")]
        assert_near(logits, trainer.model(next(iter(trainer.test_loader))["img"]))
    assert not list(Path(cfg().FEATURES.DIR).rglob("*.npz"))


def test_whoever_encodes_in_another_way_returns_another_tower(cfg, use):
    class Tower(torch.nn.Module):
        def __init__(self, tower):
            super().__init__()
            self.tower = tower

        def forward(self, images):
            return self.tower(images.flip(-1))

    class Right(CoOp):
        def prompted_clip(self, clip_model, classnames, **changes):
            model = super().prompted_clip(clip_model, classnames, **changes)
            model.image_encoder = Tower(model.image_encoder)
            return model

    class Encodes(CoOp):
        def encode_images(self, images):
            return super().encode_images(images.flip(-1))

    class TestsAnother(CoOp):
        def image_tower(self):
            return Tower(super().image_tower())

    build_trainer(cfg()).test()
    use(Encodes)
    with pytest.raises(ValueError, match="Encodes redefines encode_images, but features are kept by the weights"):
        build_trainer(cfg())
    use(TestsAnother)
    with pytest.raises(ValueError, match="CoOp's image_tower is not its model's image_encoder, but training goes"):
        build_trainer(cfg())
    use(Right)
    trainer = build_trainer(cfg())
    images = next(iter(trainer.test_loader))["img"]
    with torch.no_grad():
        [logits, *_] = [logits for logits, _ in trainer.predictions("test")]
        assert_near(logits, trainer.model.classify(trainer.clip_model.visual(images.flip(-1)).float()))
    fresh, views = train(cfg(name="fresh")), train(cfg("INPUT.VIEWS", 2, name="views"))
    assert_near(fresh["ctx"], views["ctx"])


def test_a_loss_of_a_methods_own_goes_with_views(cfg, use):
    class Smooth(CoOp):
        def loss(self, logits, labels):
            return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.5)

    plain = train(cfg(name="plain"))
    use(Smooth)
    fresh, views = train(cfg(name="fresh")), train(cfg("INPUT.VIEWS", 2, name="views"))
    assert_near(fresh["ctx"], views["ctx"])
    assert distance(plain["ctx"], fresh["ctx"]) > 10 * rounding_tolerance()


@pytest.mark.parametrize(
    "method", [FlipsInTests, FlipsInBatches, FlipsInTheModel, FlipsWhileTraining, StepsItself, TrainsTheTower]
)
def test_views_are_refused_where_a_method_computes_on_images(cfg, use, method):
    use(method)
    with pytest.raises(ValueError, match="INPUT.VIEWS is 2, which needs features: "):
        build_trainer(cfg("INPUT.VIEWS", 2))
    assert train(cfg())  # without them it does


def test_views_are_those_of_the_transform_that_the_loader_has(cfg, use):
    class OwnTransform(CoOp):
        def build_data_loader(self):
            super().build_data_loader()
            tfm_train = transforms.Compose([build_transform(self.cfg, is_train=False), lambda image: 0.5 * image])
            self.dm = DataManager(self.cfg, custom_tfm_train=tfm_train)
            self.train_loader_x = self.dm.train_loader_x

    build_trainer(cfg("INPUT.VIEWS", 1)).train()
    use(OwnTransform)
    trainer = build_trainer(cfg("INPUT.VIEWS", 1))
    dataset = trainer.train_loader_x.dataset
    trainer.before_train()
    with torch.no_grad():
        expected = trainer.encode_images(torch.stack([dataset[index]["img"] for index in range(len(dataset))]))
    for batch in trainer.train_loader_x:
        assert_near(batch["features"], expected[batch["index"]])
    trainer.writer.close()


def test_a_method_may_choose_the_pixels(cfg, use):
    class Pixels(CoOp):
        def decide_features(self):
            super().decide_features()
            self.uses_features = False

    build_trainer(cfg()).test()  # whose features are kept
    use(Pixels)
    trainer, encoded = build_trainer(cfg()), []
    trainer.model.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    trainer.test()
    assert len(encoded) == len(trainer.test_loader)
    with pytest.raises(ValueError, match="INPUT.VIEWS is 2, which needs features"):
        build_trainer(cfg("INPUT.VIEWS", 2))


@pytest.mark.parametrize(
    "method, said",
    [
        (CoOp, "Test images: encoded once, their features are kept"),
        (FlipsInTests, "Test images: read as pixels, since FlipsInTests redefines model_inference"),
        (FlipsInBatches, "Test images: read as pixels, since FlipsInBatches redefines parse_batch_test"),
    ],
)
def test_the_log_says_which_and_why(cfg, use, caplog, method, said):
    use(method)
    with caplog.at_level("INFO", logger="engine"):
        build_trainer(cfg())
    assert said in caplog.messages
