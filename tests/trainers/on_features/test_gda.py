"""GDA beside its formulas in float64, and beside scikit-learn's LDA: rows, the choice of alpha, new classes."""

import shutil

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from inference.classifier import Classifier
from tests.support.tiny_run import CLASSES, build_trainer, run_train, tiny_cfg, write_images
from tests.support.tolerance import EXACT, assert_near
from tests.trainers.on_features.by_hand import E, batch_of, scale_of, texts_of, unit, views_of
from trainers.gda import class_gaussians, new_gaussians, rows

TEMPLATE, N_VIEWS = "a photo of a {}.", 2
EPS = np.finfo(np.float32).eps
PRECISION = 1e-4  # of logits in float32: parts of a score are larger than the differences of scores (measured: 2e-6)


@pytest.fixture
def make(tiny_files, tmp_path):
    data, clips = tiny_files
    own = ("TRAINER.NAME", "GDA", "TRAINER.GDA.PREC", "fp32", "TRAINER.GDA.AUGMENT_EPOCH", N_VIEWS)
    return lambda *pairs, folder="run": build_trainer(tiny_cfg(data, clips["vit"], tmp_path / folder, *own, *pairs))


def drawn(seed=0, sizes=(7, 7, 7), dim=5):
    """Features (N, E) float64 around means that differ, and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    means = torch.randn(len(sizes), dim, generator=generator, dtype=torch.float64)
    return means[labels] + torch.randn(len(labels), dim, generator=generator, dtype=torch.float64), labels


def naive_rows(features, labels, *, classwise):
    """The authors' means and precision, by numpy."""
    x, y, classes = features.numpy(), labels.numpy(), range(int(labels.max()) + 1)
    means = np.stack([x[y == c].mean(axis=0) for c in classes])
    if classwise:
        mean_covariance = np.mean([np.cov(x[y == c].T) for c in classes], axis=0)
        return torch.tensor(means), torch.tensor(np.linalg.pinv(mean_covariance, rcond=x.shape[1] * EPS))
    centred = np.concatenate([x[y == c] - means[c] for c in classes])
    covariance, (n, dim) = np.cov(centred.T), centred.shape
    shrunk = (n - 1) * covariance + np.trace(covariance) * np.eye(dim)
    return torch.tensor(means), torch.tensor(dim * np.linalg.pinv(shrunk))


def naive_new(texts, support, k):
    """The authors' means and precision of new classes: an inverse for each."""
    means, precisions, dim = [], [], support.shape[1]
    for text in texts:
        near = support[torch.argsort(support @ text, descending=True)[:k]]
        means.append(torch.cat([near, text.expand(16, -1)]).mean(dim=0))
        covariance = (near - text).T @ (near - text) / (k - 1)
        precisions.append(dim * torch.linalg.inv((k - 1) * covariance + covariance.trace() * torch.eye(dim).double()))
    return torch.stack(means), torch.stack(precisions).mean(dim=0)


def naive_scores(features, means, precision):
    return features @ precision @ means.T - torch.einsum("ce,ef,cf->c", means, precision, means) / 2


def assert_near_but_for_a_constant(found, expected, tolerance):
    """Of each image: the prior is left out."""
    found, expected = (values.double() - values.double().mean(dim=1, keepdim=True) for values in (found, expected))
    assert_near(found, expected, tolerance)


def as_used(trainer, n_views=N_VIEWS):
    views, labels = views_of(trainer, n_views)
    return unit(views).flatten(0, 1), labels.repeat_interleave(n_views)


@pytest.mark.parametrize("classwise", [False, True])
def test_means_and_precision_are_the_formulas_also_where_classes_have_fewer_images(classwise):
    features, labels = drawn(sizes=(9, 4, 7, 1) if not classwise else (9, 4, 7))
    features[:, 0] *= 1e-5  # float32's pinv leaves this variance out, float64's does not
    found = class_gaussians(features, labels, int(labels.max()) + 1, classwise=classwise)
    for one, other in zip(found, naive_rows(features, labels, classwise=classwise), strict=True):
        assert_near(one, other, EXACT)


def test_with_the_plain_inverse_of_the_covariance_within_classes_it_is_scikit_learns_lda():
    features, labels = drawn()
    means, _ = class_gaussians(features, labels, 3, classwise=False)
    centred = features - means[labels]
    own = rows(means, torch.linalg.inv(centred.T @ centred / len(centred)))
    lda = LinearDiscriminantAnalysis(solver="lsqr").fit(features.numpy(), labels.numpy())
    others, _ = drawn(seed=1)
    expected = torch.tensor(lda.decision_function(others.numpy()))
    assert_near_but_for_a_constant(others @ own["weight"].double().T + own["bias"], expected, 1e-6)


@pytest.mark.parametrize("subset", ["all", "base"])
def test_logits_are_the_authors_equation(make, subset):
    trainer, (features, _) = make("DATASET.SUBSAMPLE_CLASSES", subset), batch_of()
    trainer.prepare()
    trainer.model.prompt_learner.alpha.fill_(2.0)
    n, x = trainer.num_classes, unit(features.double())
    scores = naive_scores(x, *naive_rows(*as_used(trainer), classwise=subset == "base")) + np.log(1 / n)
    expected = scale_of(trainer) * x @ unit(texts_of(TEMPLATE)[0])[:n].T + 2 * scores
    assert_near_but_for_a_constant(trainer.classify_features(features), expected, PRECISION)
    assert_near(trainer.feature_head().logits(features), trainer.classify_features(features))


def test_without_gaussians_or_their_weight_it_is_zero_shot_clip(make):
    trainer, (features, _) = make(), batch_of()
    expected = scale_of(trainer) * unit(features.double()) @ unit(texts_of(TEMPLATE)[0]).T
    assert_near(trainer.classify_features(features), expected)
    trainer.prepare()
    trainer.model.prompt_learner.alpha.zero_()
    assert_near(trainer.classify_features(features), expected)


def test_alpha_is_the_first_of_the_best_on_the_validation_items(make):
    trainer = make()
    trainer.prepare()
    images = torch.cat([batch["img"] for batch in trainer.val_loader])
    labels = torch.tensor([item.label for item in trainer.dm.dataset.val])
    with torch.no_grad():
        x = unit(trainer.clip_model.encode_image(images).double())
    scores = naive_scores(x, *naive_rows(*as_used(trainer), classwise=False))
    zero_shot = scale_of(trainer) * x @ unit(texts_of(TEMPLATE)[0]).T
    n_hits = [int(((zero_shot + 10.0**i * scores).argmax(dim=1) == labels).sum()) for i in range(-4, 3)]
    trainer.choose()
    assert trainer.model.prompt_learner.alpha.item() == pytest.approx(10.0 ** (n_hits.index(max(n_hits)) - 4))
    assert max(n_hits) > n_hits[0]  # else a search that does nothing would pass


def test_means_and_precision_of_new_classes_are_the_authors():
    texts, support = unit(drawn(seed=2)[0][:3]), unit(drawn(sizes=(40, 40))[0])
    found = new_gaussians(texts, support)
    for one, other in zip(found, naive_new(texts, support, 64), strict=True):
        assert_near(one, other, EXACT)


@pytest.mark.parametrize("names", [["tea_pot", "lamp"], ["tea_pot", "leopard", "lamp"]], ids=["new", "open world"])
def test_a_run_on_base_classes_answers_any_classes(make, tmp_path, names):
    """New ones by the rule; where some are the training's, these keep their means, and all have the new precision."""
    trainer = make("DATASET.SUBSAMPLE_CLASSES", "base")
    features, labels = as_used(trainer)
    alpha = run_train(trainer.cfg)["alpha"]
    classifier = Classifier.from_run(tmp_path / "run", classnames=names).trainer
    texts, is_new = classifier.model.prompt_learner.class_features.double(), [name != "leopard" for name in names]
    kept = features.half().double()  # as the checkpoint has them
    new_means, precision = naive_new(texts[is_new], kept, len(kept))
    means = naive_rows(features, labels, classwise=True)[0][[1] * len(names)]
    means[is_new] = new_means
    images, _ = batch_of()
    x = unit(images.double())
    expected = scale_of(trainer) * x @ texts.T + alpha * naive_scores(x, means, precision)
    assert_near_but_for_a_constant(classifier.classify_features(images), expected, PRECISION)


def test_a_test_on_all_classes_gives_what_predict_gives(make, tiny_files, tmp_path):
    run_train(make("DATASET.SUBSAMPLE_CLASSES", "base").cfg)
    pairs = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "run"), "TEST.SAVE_LOGITS", True)
    run_train(make(*pairs, folder="all").cfg)
    paths = sorted((tiny_files[0] / "test").glob("*/*.png"))
    logits = torch.from_numpy(np.load(tmp_path / "all" / "logits.npz")["logits"])
    assert logits.shape == (9, 3)
    classifier = Classifier.from_run(tmp_path / "run", classnames=CLASSES)
    assert_near(classifier.logits(paths), logits)
    assert_near(Classifier.from_run(tmp_path / "all").logits(paths), logits)


def test_a_new_class_with_the_name_of_a_base_class_is_another(make, tmp_path):
    """ImageNet has two of one name."""
    data, names = write_images(tmp_path / "data"), tmp_path / "names.txt"
    for split in ("train", "val", "test"):
        shutil.copytree(data / split / "face", data / split / "zebra")
    names.write_text("face face\nleopard bird\nwine_bottle bird\nzebra zebra\n")
    own = ("DATASET.ROOT", str(data), "DATASET.CLASSNAMES", str(names))
    run_train(make(*own, "DATASET.SUBSAMPLE_CLASSES", "base").cfg)
    new = make(*own, "DATASET.SUBSAMPLE_CLASSES", "new", "RUN.EVAL_ONLY", True, folder="new")
    assert new.dm.dataset.classnames == ["bird", "zebra"]
    new.load_model(tmp_path / "run")
    support = torch.load(tmp_path / "run/prompt_learner/model-best.pth.tar", weights_only=True)["state_dict"]["support"]
    means, _ = naive_new(new.model.prompt_learner.class_features.double(), support.double(), len(support))
    assert_near(new.model.prompt_learner.means, means)


def test_a_run_on_all_classes_answers_new_ones_only_where_it_was_told_to_keep_what_they_are_made_of(make, tmp_path):
    run_train(make().cfg)
    run_train(make("TRAINER.GDA.NEW_CLASSES", True, folder="kept").cfg)
    with pytest.raises(ValueError, match="does not know .tea_pot., and keeps nothing to make new classes of. Train on"):
        Classifier.from_run(tmp_path / "run", classnames=["face", "tea_pot"])
    Classifier.from_run(tmp_path / "kept", classnames=["face", "tea_pot"])
    classifier, (features, _) = Classifier.from_run(tmp_path / "run"), batch_of()
    two = classifier.with_classes(["wine_bottle", "face"])
    assert_near(two.head.logits(features), classifier.head.logits(features)[:, [2, 0]])


def test_a_class_without_images_is_refused(make):
    trainer = make()
    trainer.dm.dataset.train_x = [item for item in trainer.dm.dataset.train_x if item.label]
    with pytest.raises(ValueError, match=r"Folder has 1 class\(es\) without a training image, which have no mean"):
        trainer.prepare()


@pytest.mark.parametrize(("n_views", "n_shots", "is_warned"), [(1, 1, True), (2, 1, False), (1, 2, False)])
def test_a_class_of_one_feature_is_zero_shot_clip_and_the_run_says_so(make, n_views, n_shots, is_warned):
    trainer, (features, _) = make("TRAINER.GDA.AUGMENT_EPOCH", n_views, "DATASET.NUM_SHOTS", n_shots), batch_of()
    trainer.prepare()
    zero_shot = scale_of(trainer) * unit(features.double()) @ unit(texts_of(TEMPLATE)[0]).T
    is_zero_shot = torch.allclose(trainer.classify_features(features).double(), zero_shot, atol=1e-4)
    is_said = any(text.startswith("Each class has one feature") for text in trainer.warnings)
    assert (is_zero_shot, is_said) == (is_warned, is_warned)


def test_the_checkpoint_holds_the_features_of_base_classes_in_float16(make, tmp_path):
    trainer = make("DATASET.SUBSAMPLE_CLASSES", "base")
    run_train(trainer.cfg)
    path = tmp_path / "run/prompt_learner/model-best.pth.tar"
    support = torch.load(path, weights_only=True)["state_dict"]["support"]
    assert (support.shape, support.dtype) == ((2 * 4 * N_VIEWS, E), torch.float16)
    assert_near(support, as_used(trainer)[0], 1e-3)
