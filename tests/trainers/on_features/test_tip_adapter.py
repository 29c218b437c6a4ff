"""Tip-Adapter and Tip-Adapter-F beside their formula in float64: keys, votes, a step, the choice of alpha and beta."""

import pytest
import torch

from engine import DATASET_REGISTRY
from inference.classifier import Classifier
from tests.support.tiny_run import CLASSES, build_trainer, own_warnings, run_train, tiny_cfg, write_images
from tests.support.tolerance import assert_near
from tests.trainers.on_features.by_hand import batch_of, cross_entropy, scale_of, step, texts_of, unit, views_of
from trainers.templates import IMAGENET_TEMPLATES_SELECT
from trainers.tip_adapter import grid

TIP, TIP_F = "TipAdapter", "TipAdapterF"
OPTIONS = "TRAINER.TIP_ADAPTER."


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files

    def build(name, *pairs, data=data, folder="run"):
        own = ("TRAINER.NAME", name, f"{OPTIONS}PREC", "fp32", f"{OPTIONS}AUGMENT_EPOCH", 2)
        return build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, *own, *pairs))

    return build


def prepared(trainer):
    trainer.prepare()
    return trainer


def naive(trainer, features, keys, labels, alpha, beta):
    """The authors' equation: flat keys (N, E), one-hot values (N, C)."""
    features = unit(features.double())
    values = torch.eye(len(CLASSES), dtype=torch.float64)[labels]
    zero_shot = scale_of(trainer) * features @ unit(texts_of("a photo of a {}.")[0]).T
    return zero_shot + alpha * (-beta * (1 - features @ keys.T)).exp() @ values


def naive_keys(trainer, n_views=2):
    """The keys (N, E) float64 of the training images in their order, and the labels (N,)."""
    views, labels = views_of(trainer, n_views)
    return unit(views.mean(dim=1)), labels


@pytest.mark.parametrize("name", [TIP, TIP_F])
def test_logits_are_the_authors_equation_also_where_classes_have_fewer_images(make, tmp_path, name):
    data = write_images(tmp_path / "data")
    (data / "train" / "leopard" / "0.png").unlink()
    trainer, (features, _) = prepared(make(name, f"{OPTIONS}INIT_ALPHA", 2.0, data=data)), batch_of()
    expected = naive(trainer, features, *naive_keys(trainer), 2.0, 1.0)
    assert trainer.model.prompt_learner.filled.sum(dim=1).tolist() == [4, 3, 4]
    assert_near(trainer.classify_features(features), expected)


@pytest.mark.parametrize("name", [TIP, TIP_F])
def test_without_keys_or_their_weight_it_is_zero_shot_clip(make, name):
    (features, _), zero = batch_of(), make(name, f"{OPTIONS}INIT_ALPHA", 0.0)
    expected = scale_of(zero) * unit(features.double()) @ unit(texts_of("a photo of a {}.")[0]).T
    for trainer in (make(name), prepared(zero)):
        assert_near(trainer.classify_features(features), expected)


def test_loss_and_gradient_of_a_step_are_those_of_the_formula(make):
    trainer, (features, labels) = prepared(make(TIP_F)), batch_of()
    keys, owners = naive_keys(trainer)
    keys.requires_grad_()
    expected = cross_entropy(naive(trainer, features, keys, owners, 1.17, 1.0), labels)
    loss, [gradient] = step(trainer, features, labels)
    assert_near(loss, expected)
    [of_keys] = torch.autograd.grad(expected, keys)
    assert_near(gradient, torch.stack([of_keys[owners == c] for c in range(len(CLASSES))]))


def test_steps_of_length_zero_leave_tip_adapter(make):
    results = [
        run_train(make(name, "OPTIM.LR", 0.0, f"{OPTIONS}SEARCH_STEP", (20, 5), folder=name).cfg)
        for name in (TIP, TIP_F)
    ]
    measures = ("accuracy", "nll", "alpha", "beta")
    assert [results[0][key] for key in measures] == [results[1][key] for key in measures]
    assert [result["n_params"] for result in results] == [0, 3 * 4 * 32]


def test_alpha_and_beta_are_the_first_of_the_best_on_the_validation_items(make):
    trainer = prepared(make(TIP, f"{OPTIONS}SEARCH_STEP", (7, 5), f"{OPTIONS}SEARCH_SCALE", (40.0, 30.0)))
    images = torch.cat([batch["img"] for batch in trainer.val_loader])
    labels = torch.tensor([item.label for item in trainer.dm.dataset.val])
    with torch.no_grad():
        features = trainer.clip_model.encode_image(images)
    keys, best = naive_keys(trainer), (-1, 0, 0)
    for beta in (0.1 + i * 39.9 / 7 for i in range(7)):
        for alpha in (0.1 + i * 29.9 / 5 for i in range(5)):
            n_hits = int((naive(trainer, features, *keys, alpha, beta).argmax(dim=1) == labels).sum())
            if n_hits > best[0]:
                best = n_hits, alpha, beta
    trainer.choose()
    cache = trainer.model.prompt_learner
    assert (cache.alpha.item(), cache.beta.item()) == pytest.approx(best[1:])
    assert best[1:] != (0.1, 0.1)  # else a search that does nothing would pass


def test_where_all_items_are_trained_on_nothing_is_chosen_and_the_run_says_so(make, tmp_path):
    data = write_images(tmp_path / "data", splits=("train", "test"))
    results = run_train(make(TIP, data=data).cfg)
    assert (results["alpha"], results["beta"]) == (pytest.approx(1.17), 1.0)
    [warning] = [text for text in own_warnings(results) if "nothing has chosen alpha and beta of TipAdapter" in text]
    assert warning.startswith("Folder has no validation items, and no training images besides those trained on")


@pytest.mark.parametrize("name", [TIP, TIP_F])
def test_a_class_without_images_gets_no_votes_and_the_run_says_so(make, tmp_path, name):
    data = write_images(tmp_path / "data")
    for image in (data / "train" / "leopard").iterdir():
        image.write_bytes(b"not an image")
    warnings = own_warnings(run_train(make(name, "INPUT.ON_BAD_IMAGE", "skip", data=data).cfg))
    assert f"1 of 3 classes have no training image: {name} knows them by their names alone." in warnings
    state = torch.load(next((tmp_path / "run/prompt_learner").glob("model*")), weights_only=True)["state_dict"]
    assert state["filled"].sum(dim=1).tolist() == [4, 0, 4]


def test_the_keys_travel_with_their_classes(make, tmp_path):
    run_train(make(TIP_F, "INPUT.VIEWS", 2).cfg)
    classifier, (features, _) = Classifier.from_run(tmp_path / "run"), batch_of()
    two = classifier.with_classes(["wine_bottle", "face"])
    logits, of_two = (one.trainer.classify_features(features) for one in (classifier, two))
    assert_near(of_two, logits[:, [2, 0]])
    with pytest.raises(ValueError, match="learned for each of 3 classes"):
        classifier.with_classes(["tea_pot", "face"])


def test_on_imagenet_seven_templates_are_averaged_as_directions(make, register):
    register(DATASET_REGISTRY, DATASET_REGISTRY.get("Folder"), "ImageNet")
    texts = texts_of(*IMAGENET_TEMPLATES_SELECT)
    found = make(TIP, "DATASET.NAME", "ImageNet").model.prompt_learner.class_features
    assert_near(found, unit(sum(map(unit, texts))))


def test_the_grids_are_the_authors():
    betas = grid(7.0, 200)
    assert (len(betas), betas[0]) == (200, 0.1)
    assert betas[-1] == pytest.approx(7.0 - 6.9 / 200)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((f"{OPTIONS}AUGMENT_EPOCH", 0), "AUGMENT_EPOCH is 0; it must be from 1 to 20."),
        ((f"{OPTIONS}INIT_ALPHA", -1.0), "INIT_ALPHA is -1.0; it must be 0 or more."),
        ((f"{OPTIONS}INIT_BETA", -1.0), "INIT_BETA is -1.0; it must be 0 or more."),
        ((f"{OPTIONS}SEARCH_SCALE", (7.0, 0.1)), "it must be two numbers above 0.1."),
        ((f"{OPTIONS}SEARCH_STEP", (200,)), r"SEARCH_STEP is \(200,\); it must be two numbers of 1 or more, or \(\)."),
        (("MODEL.INIT_WEIGHTS", "x"), "TipAdapterF starts from the training images. Leave it out."),
    ],
)
def test_options_that_mean_nothing_are_refused(make, pairs, message):
    with pytest.raises(ValueError, match=message):
        make(TIP_F, *pairs)
