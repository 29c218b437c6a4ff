"""ZS-LP and CLAP beside their formula in float64: the start, a step, the weights of the penalty, their outer steps."""

import pytest
import torch

from engine import DATASET_REGISTRY
from inference.classifier import Classifier
from tests.resume.stopping import assert_same, ended, terminate, train
from tests.support.tiny_run import CLASSES, build_trainer, own_warnings, run_train, tiny_cfg, write_images
from tests.support.tolerance import assert_near
from tests.trainers.on_features.by_hand import batch_of, cross_entropy, scale_of, step, texts_of, unit
from trainers.clap import Prototypes
from trainers.templates import IMAGENET_TEMPLATES_SELECT

TEMPLATE = "a photo of a {}."
BOTH = ("ZSLP", "CLAP")
CONSTRAINT = "TRAINER.CLAP.CONSTRAINT"
C = len(CLASSES)


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files

    def build(name, *pairs, data=data, folder="run"):
        own = ("TRAINER.NAME", name, "TRAINER.CLAP.PREC", "fp32", "INPUT.VIEWS", 2, "OPTIM.LR", 0.1)
        return build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, *own, *pairs))

    return build


def naive(trainer, features, prototypes):
    return scale_of(trainer) * unit(features.double()) @ unit(prototypes).T


def naive_means(trainer, n_views=2):
    """The mean probability (C,) of each class under zero-shot CLIP, over views of its training images drawn here."""
    dataset, [texts] = trainer.dm.train_loader_x.dataset, texts_of(TEMPLATE)
    found = [[] for _ in CLASSES]
    for epoch in range(n_views):
        dataset.set_epoch(epoch)
        for index, item in enumerate(dataset.data_source):
            with torch.no_grad():
                feature = trainer.clip_model.encode_image(dataset[index]["img"][None]).double()
            found[item.label].append(naive(trainer, feature, texts).softmax(dim=1)[0, item.label])
    return torch.tensor([sum(of_class) / len(of_class) for of_class in found], dtype=torch.float64)


def move(trainer):
    """Moves the prototypes away from the text features, sets alpha, and returns both in float64."""
    learner, generator = trainer.model.prompt_learner, torch.Generator().manual_seed(1)
    with torch.no_grad():
        learner.prototypes += torch.randn(learner.prototypes.shape, generator=generator)
        learner.alpha.copy_(torch.tensor([0.2, 0.5, 0.9]))
    return learner.prototypes.detach().double().requires_grad_(), learner.alpha.double()


@pytest.mark.parametrize("name", BOTH)
def test_the_start_is_zero_shot_clip(make, name):
    trainer, (features, _) = make(name), batch_of()
    assert_near(trainer.classify_features(features), naive(trainer, features, texts_of(TEMPLATE)[0]))


@pytest.mark.parametrize("name", BOTH)
def test_loss_and_gradient_of_a_step_are_those_of_the_formula(make, name):
    trainer, (features, labels) = make(name), batch_of()
    prototypes, alpha = move(trainer)
    [texts] = texts_of(TEMPLATE)
    expected = cross_entropy(naive(trainer, features, prototypes), labels)
    [expected_gradient] = torch.autograd.grad(expected, prototypes)
    if name == "CLAP":
        away = prototypes.detach() - texts
        expected = expected + (alpha * (away**2).sum(dim=1)).sum() / C
        expected_gradient += 2 * alpha[:, None] * away / C
    loss, [gradient] = step(trainer, features, labels)
    assert_near(loss, expected.detach())
    assert_near(gradient, expected_gradient)


@pytest.mark.parametrize(
    ("constraint", "n_views"),
    [("l2", 2), ("l2", 0), ("balanced", 2), ("corrected", 2), ("constant", 2), ("adaptative", 2)],
)
def test_the_weights_of_the_penalty_are_those_of_the_constraint(make, constraint, n_views):
    """Without INPUT.VIEWS, the views are those of the first epochs, of which there are two."""
    trainer = make("CLAP", CONSTRAINT, constraint, "INPUT.VIEWS", n_views)
    move(trainer)  # as MODEL.INIT_WEIGHTS does: zero-shot CLIP's answers count all the same
    trainer.prepare()
    means = naive_means(trainer)
    expected = {
        "balanced": torch.ones(C, dtype=torch.float64),
        "corrected": means * C / means.sum(),
        "constant": means.sum() / C * torch.ones(C, dtype=torch.float64),
    }
    assert means.max() > 1.5 * means.min()  # else a mean would pass for each class's own
    assert_near(trainer.model.prompt_learner.alpha, expected.get(constraint, means))


@pytest.mark.parametrize("constraint", ["l2", "adaptative"])
def test_after_each_epoch_the_weights_are_those_of_the_augmented_lagrangian(make, constraint):
    trainer = make("CLAP", CONSTRAINT, constraint, "OPTIM.MAX_EPOCH", 4)
    [texts], learner, found = texts_of(TEMPLATE), trainer.model.prompt_learner, []
    before_epoch = trainer.before_epoch
    trainer.before_epoch = lambda: (found.append(copies(learner)), before_epoch())
    trainer.train()
    found.append(copies(learner))
    alpha, rho = found[0]["alpha"], torch.zeros(C, dtype=torch.float64)
    for after in found[1:]:
        if constraint == "adaptative":
            away = ((after["prototypes"] - texts) ** 2).sum(dim=1)
            alpha, rho = (alpha + rho * away).clamp(min=0), away
        assert_near(after["alpha"], alpha)
    assert (found[-1]["alpha"] > 1.01 * found[0]["alpha"]).all() == (constraint == "adaptative")


def copies(learner):
    return {name: value.double().clone() for name, value in learner.state_dict().items()}


def test_a_run_that_is_stopped_while_it_validates_does_the_outer_step_once(make):
    pairs = (CONSTRAINT, "adaptative", "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", 3)
    alone = make("CLAP", *pairs, folder="alone")
    assert train(alone)
    expected, stopped = ended(alone), make("CLAP", *pairs)
    test = stopped.test
    stopped.test = lambda split=None: terminate() if stopped.epoch == 1 else test(split)
    assert not train(stopped)
    again = make("CLAP", *pairs)
    assert train(again)
    assert again.start_epoch == 1
    assert_same(ended(again), expected)


def test_clap_with_weights_of_zero_is_zslp_to_the_bit(make, monkeypatch):
    monkeypatch.setattr(Prototypes, "hold", lambda *_: None)
    learned = []
    for name in BOTH:
        trainer = make(name, folder=name)
        trainer.train()
        learned.append(trainer.model.prompt_learner.state_dict())
    assert not torch.equal(learned[0]["prototypes"], trainer.model.prompt_learner.text_features)
    assert all(torch.equal(value, learned[1][key]) for key, value in learned[0].items())


def test_a_class_without_images_has_the_mean_weight_of_the_others_and_the_run_says_so(make, tmp_path):
    data = write_images(tmp_path / "data")
    for image in (data / "train" / "leopard").iterdir():
        image.write_bytes(b"not an image")
    results = run_train(make("CLAP", "INPUT.ON_BAD_IMAGE", "skip", data=data).cfg)
    state = torch.load(tmp_path / "run/prompt_learner/model.pth.tar-2", weights_only=True)["state_dict"]
    assert state["alpha"][1] == pytest.approx(((state["alpha"][0] + state["alpha"][2]) / 2).item())
    assert any(text.startswith("1 of 3 classes have no training image: CLAP") for text in own_warnings(results))


def test_on_imagenet_eight_templates_are_averaged_as_they_are(make, register):
    register(DATASET_REGISTRY, DATASET_REGISTRY.get("Folder"), "ImageNet")
    expected = torch.stack(texts_of(*IMAGENET_TEMPLATES_SELECT, TEMPLATE)).mean(dim=0)
    for name in BOTH:
        assert_near(make(name, "DATASET.NAME", "ImageNet").model.prompt_learner.prototypes, expected)


@pytest.mark.parametrize("name", BOTH)
def test_what_is_learned_for_each_class_is_taken_by_name_and_refuses_others(make, tmp_path, name):
    trainer = make(name)
    run_train(trainer.cfg)
    classifier, (features, _) = Classifier.from_run(tmp_path / "run"), batch_of()
    two = classifier.with_classes(["wine_bottle", "face"])
    logits = classifier.trainer.classify_features(features)
    assert (logits - trainer.classify_features(features)).abs().min() > 0  # it has learned something
    assert_near(two.head.logits(features), logits[:, [2, 0]])
    with pytest.raises(ValueError, match="learned for each of 3 classes"):
        classifier.with_classes(["tea_pot", "face"])


def test_a_constraint_that_is_not_known_is_refused(make):
    with pytest.raises(ValueError, match="TRAINER.CLAP.CONSTRAINT is 'cosine'.*l2, balanced, corrected"):
        make("CLAP", CONSTRAINT, "cosine")
