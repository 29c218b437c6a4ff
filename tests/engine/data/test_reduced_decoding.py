"""INPUT.REDUCED_DECODING: JPEG files at the smallest scale that leaves enough pixels, and who has to know of it."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

import export
from engine import DataManager, Datum, build_transform, get_cfg_default
from engine.config.identity import config_digest
from engine.data.image_io import read_image
from engine.data.images import DatasetWrapper
from engine.data.samplers import mix_seeds
from engine.data.transforms import describe_transform
from engine.evaluation.evaluator import Classification
from inference.classifier import Classifier
from inference.page import Page
from tests.support.tiny_run import CLASSES, build_trainer, own_warnings, run_train, tiny_cfg
from tests.support.tolerance import assert_near

SIZE = (160, 144)  # width, height: of its shorter edge 1/4 is enough for 32 pixels, 1/2 for 53
WARNING = (
    "INPUT.REDUCED_DECODING is True: large JPEG files are decoded at a reduced scale, which changes their pixels. "
    "Compare these results with those of such runs alone."
)


def write_jpeg(path, size=SIZE, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=90)
    return str(path)


def drafted(path, divisor):
    """What Pillow's own reduced decoding gives."""
    with Image.open(path) as image:
        image.draft("RGB", (image.width // divisor, image.height // divisor))
        return image.convert("RGB")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The tiny folder's classes, as JPEG files."""
    folder = tmp_path_factory.mktemp("photos")
    for split in ("train", "val", "test"):
        for c, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(3):
                write_jpeg(folder / split / name / f"{i}.jpg", seed=len(split) + 10 * c + i)
    return folder


@pytest.fixture
def cfg(photos, tiny_files, tmp_path):
    """cfg(KEY, VALUE, ..., name=...): the config of a tiny run on the photos, reduced unless a pair says otherwise."""

    def build(*pairs, name="run"):
        keys = (
            "FEATURES.DIR",
            str(tmp_path / "cache"),
            "INPUT.RRCROP_SCALE",
            (0.5, 1.0),
            "INPUT.REDUCED_DECODING",
            True,
        )
        return tiny_cfg(photos, tiny_files[1]["vit"], tmp_path / name, *keys, *pairs)

    return build


@pytest.mark.parametrize(
    "width, height", [(160, 144), (144, 160), (63, 99), (64, 64), (31, 400), (255, 257), (257, 600)]
)
@pytest.mark.parametrize("edge", [1, 16, 32, 53, 200])
def test_the_scale_is_the_smallest_that_leaves_enough_pixels(tmp_path, width, height, edge):
    divisor = max([s for s in (2, 4, 8) if min(width, height) / s >= edge], default=1)
    path = write_jpeg(tmp_path / "a.jpg", (width, height))
    found = read_image(path, shorter_edge=edge)
    assert found.size == (math.ceil(width / divisor), math.ceil(height / divisor))
    assert found.tobytes() == (drafted(path, divisor) if divisor > 1 else Image.open(path)).tobytes()


class TestEnough:
    """What a transform needs."""

    def make(self, *names, **values):
        cfg = get_cfg_default()
        cfg.INPUT.TRANSFORMS, cfg.INPUT.REDUCED_DECODING = names, True
        cfg.INPUT.merge_from_list([word for pair in values.items() for word in pair])
        return cfg

    @pytest.mark.parametrize("resize", ["crop", "hf_crop", "squash"])
    def test_in_a_test_no_edge_is_enlarged(self, resize):
        assert build_transform(self.make(RESIZE=resize, SIZE=(200, 224)), is_train=False).shorter_edge == 224

    @pytest.mark.parametrize("share", [0.08, 0.3, 0.5])
    def test_the_smallest_random_view_has_as_many_pixels_as_it_is_enlarged_to(self, share):
        enough = build_transform(self.make("random_resized_crop", RRCROP_SCALE=(share, 1.0))).shorter_edge

        def smallest_view(edge):
            image = Image.new("RGB", (edge, edge))
            views = [T.RandomResizedCrop.get_params(image, (share, share), (3 / 4, 4 / 3)) for _ in range(300)]
            return min(min(height, width) for _, _, height, width in views)

        assert smallest_view(enough) >= 224 > smallest_view(int(0.95 * enough))

    def test_the_numbers_of_clips_own_transforms(self):
        cfg = self.make("random_resized_crop", "random_flip", "normalize")
        assert [build_transform(cfg, is_train).shorter_edge for is_train in (True, False)] == [915, 224]
        assert build_transform(self.make("random_flip")).shorter_edge == 224

    @pytest.mark.parametrize("names", [("random_crop",), ("random_crop", "random_resized_crop")])
    def test_a_crop_of_pixels_as_they_are_needs_them_all(self, names):
        assert build_transform(self.make(*names)).shorter_edge == 0

    @pytest.mark.parametrize("is_train", [True, False])
    def test_what_names_a_transform_says_it(self, is_train):
        reduced, plain = self.make("random_resized_crop"), self.make("random_resized_crop", REDUCED_DECODING=False)
        for tell in (
            lambda cfg: repr(build_transform(cfg, is_train)),
            lambda c: describe_transform(c, is_train=is_train),
        ):
            assert tell(reduced) != tell(plain)


def test_all_views_of_a_file_come_from_one_decoding_that_is_enough_for_each(cfg, tmp_path):
    config, path = cfg("DATALOADER.K_TRANSFORMS", 2, "DATALOADER.RETURN_IMG0", True), write_jpeg(tmp_path / "a.jpg")
    train, test = (build_transform(config, is_train) for is_train in (True, False))
    wrappers = [DatasetWrapper(config, [Datum(path)], train, True), DatasetWrapper(config, [Datum(path)], test)]
    half, quarter = drafted(path, 2), drafted(path, 4)
    part, tested = wrappers[0][0], wrappers[1][0]
    assert wrappers[0].images.kept[path].tobytes() == half.tobytes()
    assert torch.equal(part["img0"], test(half)) and torch.equal(tested["img"], test(quarter))
    torch.manual_seed(mix_seeds(config.SEED, 0, 0))
    assert torch.equal(part["img"], train(half)) and torch.equal(part["img2"], train(half))
    config = cfg("INPUT.REDUCED_DECODING", False)
    whole = DatasetWrapper(config, [Datum(path)], build_transform(config, is_train=False))
    assert torch.equal(whole[0]["img"], test(Image.open(path)))


def test_features_are_those_of_the_pixels_and_kept_apart_from_those_of_whole_files(cfg):
    reduced, whole = build_trainer(cfg()), build_trainer(cfg("INPUT.REDUCED_DECODING", False))
    expected = [
        torch.cat([trainer.encode_images(b["img"]) for b in trainer.test_loader]) for trainer in (reduced, whole)
    ]
    items = reduced.dm.dataset.test
    found = [trainer.features.read(items) for trainer in (reduced, whole, build_trainer(cfg()))]
    assert_near(found[0], expected[0])
    assert_near(found[1], expected[1])
    assert torch.equal(found[2], found[0]) and (found[1] - found[0]).norm() > 0.01 * found[0].norm()
    train = build_transform(reduced.cfg, is_train=True)
    views = reduced.features.read_views(reduced.dm.dataset.train_x, train, 2)
    reduced.dm.set_epoch(1)
    batch = next(iter(reduced.train_loader_x))
    assert_near(views[batch["index"], 1], reduced.encode_images(batch["img"]))


def test_a_run_is_another_one_and_says_so(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "chance_warning", lambda self: "")  # of noise
    said = run_train(cfg())
    assert own_warnings(said) == [WARNING] and said["settings"]["INPUT.REDUCED_DECODING"] is True
    log = (tmp_path / "run/log.txt").read_text()
    assert f"Warning: {WARNING}\n" in log
    assert config_digest(cfg()) != config_digest(cfg("INPUT.REDUCED_DECODING", False))
    test = ("RUN.EVAL_ONLY", True, "RUN.MODEL_DIR", str(tmp_path / "run"), "RUN.LOAD_EPOCH", 2)
    assert own_warnings(run_train(cfg(*test, name="same"))) == [WARNING]
    whole = run_train(cfg(*test, "INPUT.REDUCED_DECODING", False, name="whole"))
    assert own_warnings(whole) == [
        "The model was trained with INPUT.REDUCED_DECODING True, and is tested without it. Test it with it, too."
    ]
    assert whole["trained_with"]["INPUT.REDUCED_DECODING"] is True


@pytest.mark.parametrize("uses_features", [True, False])
def test_a_classifier_and_its_export_decode_files_as_the_run_did(cfg, photos, tmp_path, uses_features):
    results = run_train(cfg("FEATURES.DIR", ""))
    paths = sorted(str(path) for path in (photos / "test").rglob("*.jpg"))
    classifier = Classifier.from_run(tmp_path / "run")
    classifier.trainer.uses_features = uses_features
    expected = classifier([drafted(path, 4) for path in paths])
    assert_near(classifier(paths).probabilities, expected.probabilities)
    assert (classifier([Image.open(path) for path in paths]).probabilities - expected.probabilities).abs().max() > 1e-4
    bars, _ = Page(classifier, topk=3, uploads=photos).answer({"path": paths[0]}, "")
    assert_near(torch.tensor([bars[name.replace("_", " ")] for name in CLASSES]), expected.probabilities[0])
    assert export.main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    facts, page = (tmp_path / "out/config.json").read_text(), (tmp_path / "out/README.md").read_text()
    assert json.loads(facts)["preprocessing"]["REDUCED_DECODING"] is True
    below, toolkit = page.split("## Use it with the toolkit")
    assert "lines below decode them whole" in below and results["warnings"][0] in below
    assert "at a reduced scale, as in the run." in toolkit
    assert_near(Classifier.from_export(tmp_path / "out")(paths).probabilities, expected.probabilities)


class TestRefused:
    """A method's own way to pixels that does not know of it."""

    def test_a_transform(self, cfg):
        with pytest.raises(
            ValueError, match="does not say how many pixels it needs. Give it an attribute `shorter_edge`"
        ):
            DataManager(cfg(), custom_tfm_test=T.ToTensor())
        said = T.ToTensor()
        said.shorter_edge = 40
        assert DataManager(cfg(), custom_tfm_test=said).test_loader.dataset[0]["img"].shape == (3, 72, 80)

    def test_a_dataset(self, cfg):
        class Own(torch.utils.data.Dataset):
            pass

        with pytest.raises(
            ValueError, match="the method's own Own reads the images, which does not know it. Derive it "
        ):
            DataManager(cfg(), dataset_wrapper=Own)


def test_the_views_of_a_test_image_are_of_one_decoding(cfg):
    pairs = (
        "TRAINER.NAME",
        "TPT",
        "TRAINER.TPT.N_VIEWS",
        3,
        "TRAINER.TPT.CONFIDENT_SHARE",
        0.5,
        "TRAINER.TPT.PREC",
        "fp32",
    )
    trainer = build_trainer(cfg(*pairs, "RUN.EVAL_ONLY", True))
    [path] = next(iter(trainer.test_loader))["impath"][:1]
    assert torch.equal(trainer.test_loader.dataset[0]["img"], trainer.test_transform(drafted(path, 2)))
