"""2SFS: each stage by its formula, and what stands still in it; the switch, interrupted or not; other classes."""

import math

import pytest
import torch
import torch.nn.functional as F

import export
from engine import TRAINER_REGISTRY, load_checkpoint
from inference.classifier import Classifier
from tests.resume.stopping import assert_same, before_step, ended, kill, terminate, train
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg, valid_cfg
from tests.support.tolerance import assert_near
from tests.trainers.in_towers.norms_by_hand import naive_features, spread
from tests.trainers.in_towers.steps import LABELS, assert_step_is, leaves_of

N_STEPS = 3  # of an epoch; two epochs are a stage each


def own_cfg(tiny_files, folder, *pairs):
    own = {"TRAINER.NAME": "TwoStage", "TRAINER.TWO_STAGE.PREC": "fp32", "FEATURES.DIR": ""}
    own |= {"OPTIM.NAME": "adamw", "OPTIM.WEIGHT_DECAY": 0.5, **dict(zip(pairs[::2], pairs[1::2], strict=True))}
    return tiny_cfg(tiny_files[0], tiny_files[1]["vit"], folder, *(word for pair in own.items() for word in pair))


@pytest.fixture
def build(tiny_files, tmp_path):
    """build(KEY, VALUE, ...): a trainer, by default of two epochs with AdamW and much weight decay."""

    def build(*pairs, folder="run", stage=None):
        trainer = build_trainer(own_cfg(tiny_files, tmp_path / folder, *pairs))
        if stage:
            spread(trainer).epoch = stage - 1
            trainer.before_epoch()
        return trainer

    return build


def norms_of(trainer):
    return {k: v.clone() for k, v in trainer.model.prompt_learner.state_dict().items() if ".ln_" in k}


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("encoder", ["both", "text", "vision"])
def test_loss_and_gradients_of_a_stage_are_the_formulas(build, encoder, stage):
    trainer = build("TRAINER.TWO_STAGE.ENCODER", encoder, stage=stage)
    if stage == 2:
        with torch.no_grad():
            trainer.model.prompt_learner.classifier *= torch.tensor([[0.5], [2.0], [3.0]])  # it is normalised
            trainer.model.prompt_learner.classifier += 0.1
    scale = trainer.clip_model.logit_scale.double().exp()

    def loss_of(leaves, images, dtype):
        features, texts = naive_features(trainer, leaves, images, CLASSES, dtype)
        if stage == 2:
            features, texts = features.detach(), F.normalize(leaves["classifier"], dim=1)
        return F.cross_entropy(scale.to(dtype) * features @ texts.t(), LABELS)

    assert_step_is(trainer, loss_of)


@pytest.mark.parametrize("stage", [1, 2])
def test_an_image_tower_that_is_not_tuned_is_the_prepared_one_in_each_stage(build, stage):
    trainer, calls = build("TRAINER.TWO_STAGE.ENCODER", "text", stage=stage), []
    assert trainer.features.tower is not trainer.model.image_encoder
    trainer.features.tower.register_forward_pre_hook(lambda *_: calls.append(1))
    trainer.forward_backward({"img": golden_images("vit"), "label": LABELS})
    assert len(calls) == 1


def test_the_classifier_starts_as_the_tuned_text_features(build):
    trainer = build(stage=2)
    _, texts = naive_features(trainer, leaves_of(trainer, torch.float64), golden_images("vit"), CLASSES, torch.float64)
    assert_near(trainer.model.prompt_learner.classifier, texts)
    assert trainer.model.prompt_learner.classifier.dtype == torch.float32


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_what_a_stage_does_not_learn_keeps_its_bits(build, name):
    """Weight decay does not move it either."""
    trainer, seen = build("OPTIM.NAME", name, "OPTIM.MAX_EPOCH", 4), []
    step = trainer.forward_backward

    def watched(batch):
        before = norms_of(trainer), trainer.model.prompt_learner.classifier.clone()
        losses = step(batch)
        same = {key: torch.equal(before[0][key], value) for key, value in norms_of(trainer).items()}
        seen.append((set(same.values()), torch.equal(before[1], trainer.model.prompt_learner.classifier)))
        return losses

    trainer.forward_backward = watched
    trainer.train()
    assert seen == [({False}, True)] * 2 * N_STEPS + [({True}, False)] * 2 * N_STEPS


def test_each_stage_has_a_schedule_of_its_own(build):
    trainer = build("OPTIM.MAX_EPOCH", 5, "OPTIM.LR", 0.01)
    found = []
    for _ in range(5):
        found.append(trainer.trained.lr())
        trainer.optims["prompt_learner"].step()  # nothing has a gradient
        trainer.trained.update_lr()
    cosine = [(i / n, 0.01 * (1 + math.cos(math.pi * i / n)) / 2) for n in (3, 2) for i in range(n)]
    assert found == pytest.approx([rate for _, rate in cosine])


class TestResume:
    @pytest.fixture
    def expected(self, build):
        trainer = build(folder="alone")
        losses = before_step(trainer, 0, None)
        assert train(trainer)
        return losses, ended(trainer)

    @pytest.mark.parametrize(
        ("act", "n"), [(terminate, N_STEPS), (terminate, N_STEPS + 1), (terminate, N_STEPS + 2), (kill, N_STEPS + 1)]
    )
    def test_a_run_that_ends_about_the_switch_goes_on_with_the_same_bits(self, build, expected, n, act):
        losses, end = expected
        stopped = build("TRAIN.CHECKPOINT_FREQ", 1)
        before_step(stopped, n, act)
        assert not train(stopped)
        again = build("TRAIN.CHECKPOINT_FREQ", 1)
        found = before_step(again, 0, None)
        assert train(again)
        # One that is asked to end has done the step. One that is killed goes on from the last whole epoch.
        assert found == losses[n if act is terminate else N_STEPS :]
        assert_same(ended(again), end)

    def test_a_run_that_ends_while_the_classifier_starts_goes_on_with_the_same_bits(self, build, expected):
        losses, end = expected
        stopped = build()
        start = stopped.model.prompt_learner.start_classifier
        stopped.model.prompt_learner.start_classifier = lambda features: (terminate(), start(features))
        assert not train(stopped)
        again = build()
        found = before_step(again, 0, None)
        assert train(again)
        assert found == losses[N_STEPS:]
        assert_same(ended(again), end)

    def test_a_longer_run_does_not_go_on_from_the_second_stage(self, build, tmp_path):
        build().train()
        longer = build("OPTIM.MAX_EPOCH", 8, "RESUME", str(tmp_path / "run"), folder="longer")
        with pytest.raises(ValueError, match=r"second stage, but epoch 3 of 8 is in the first\. Set OPTIM\.MAX_EPOCH "):
            longer.train()

    def test_a_start_from_a_finished_run_begins_with_its_norms_alone(self, build, tmp_path):
        first = build()
        first.train()
        path = tmp_path / "run/prompt_learner/model.pth.tar-2"
        second = build("MODEL.INIT_WEIGHTS", str(path), folder="second")
        second.before_train()
        assert_near(norms_of(second), norms_of(first), 0)
        learner = second.model.prompt_learner
        assert learner.n_known == 0 and not learner.known.any() and not learner.classifier.any()


@pytest.fixture(scope="module")
def run(tiny_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_train(own_cfg(tiny_files, folder, "TRAIN.CHECKPOINT_FREQ", 1))
    return folder


@pytest.fixture(scope="module")
def logits(run):
    """logits(EPOCH, NAMES): of the run after so many epochs, for such classes; and those by hand, in two ways."""
    learned = load_checkpoint(run / "prompt_learner/model.pth.tar-2")["state_dict"]["classifier"].double()

    def logits(epoch, names):
        trainer = Classifier.from_run(run, epoch=epoch, classnames=names).trainer
        leaves, images = leaves_of(trainer, torch.float64), golden_images("vit")
        features, texts = naive_features(trainer, leaves, images, names, torch.float64)
        features = trainer.clip_model.logit_scale.double().exp() * features.detach()
        with trainer.fixed_text(), torch.no_grad():
            found = trainer.model_inference(images)
        return found, features @ texts.detach().t(), features @ F.normalize(learned, dim=1).t()

    return logits


class TestSelectiveInference:
    """Classes of the training are classified by the classifier, any other by the tuned text tower."""

    def test_known_and_new_classes_together(self, logits):
        found, by_tower, by_rows = logits(2, ["tea_pot", "wine_bottle", "face", "zebra"])
        expected = by_tower.clone()
        expected[:, [1, 2]] = by_rows[:, [2, 0]]
        assert_near(found, expected)
        assert not torch.allclose(expected, by_tower, rtol=1e-3)

    def test_new_classes_alone(self, logits):
        found, by_tower, _ = logits(2, ["tea_pot", "zebra"])
        assert_near(found, by_tower)

    def test_a_known_class_beside_others_where_the_new_half_was_tested(self, tiny_files, tmp_path):
        half = ("DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.LR", 0.05)
        run_train(own_cfg(tiny_files, tmp_path / "base", *half))
        tested = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "base"), "RUN.LOAD_EPOCH", 2)
        run_train(own_cfg(tiny_files, tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new", *tested))
        expected = Classifier.from_run(tmp_path / "base").trainer.model_inference(golden_images("vit"))
        other = Classifier.from_run(tmp_path / "new", classnames=["zebra", CLASSES[1]])
        assert_near(other.trainer.model_inference(golden_images("vit"))[:, 1], expected[:, 1])

    def test_known_classes_alone(self, logits):
        found, _, by_rows = logits(2, ["leopard", "face"])
        assert_near(found, by_rows[:, [1, 0]])

    @pytest.mark.parametrize("names", [CLASSES, ["zebra", "face"]])
    def test_after_the_first_stage_all_are_classified_by_the_tower(self, logits, names):
        found, by_tower, _ = logits(1, names)
        assert_near(found, by_tower)


def test_the_new_half_of_classes_that_were_all_learned_has_their_rows(run, tiny_files, tmp_path):
    half = build_trainer(own_cfg(tiny_files, tmp_path, "DATASET.SUBSAMPLE_CLASSES", "new"))
    half.load_model(run, epoch=2)
    learned = load_checkpoint(run / "prompt_learner/model.pth.tar-2")["state_dict"]["classifier"].double()
    assert_near(half.model.text_features(), F.normalize(learned[[2]], dim=1))


def test_the_clip_of_the_first_stage_alone_is_exported(run, tmp_path, capsys):
    words = [str(run), "--out", str(tmp_path / "clip"), "--format", "clip"]
    assert export.main(words) == 1
    assert (
        "with a classifier, which is no part of a CLIP. Use --format onnx; or name with --epoch"
        in capsys.readouterr().err
    )
    assert export.main([*words, "--epoch", "1"]) == 0
    made = Classifier.from_run(run, epoch=1), Classifier.zero_shot(tmp_path / "clip/clip.safetensors", CLASSES)
    assert_near(*(classifier.trainer.model_inference(golden_images("vit")).detach() for classifier in made))


@pytest.mark.parametrize(
    ("share", "n_epochs", "said"), [(0.6, 1, "1 of 1"), (1.0, 4, "4 of 4"), (0.0, 4, "0 of 4"), (0.1, 4, "0 of 4")]
)
def test_a_stage_without_an_epoch_is_refused(share, n_epochs, said):
    cfg = valid_cfg(TRAINER__TWO_STAGE__FIRST_STAGE=share, OPTIM__MAX_EPOCH=n_epochs)
    [error] = TRAINER_REGISTRY.get("TwoStage").config_errors(cfg)
    assert error.startswith(f"TRAINER.TWO_STAGE.FIRST_STAGE is {share}, which are {said} epochs; each stage must have ")
