"""engine/data/transforms.py against torchvision's own operations, open_clip's preprocessing and the formulas."""

import random
import re

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from engine.config.defaults import get_cfg_default
from engine.data.augmentations import Cutout, GaussianNoise, InstanceNormalization, RandomMagnitudeAugment
from engine.data.transforms import TRANSFORM_NAMES, build_transform, check_transforms
from tests.support.tolerance import EPS, assert_near

NAMES = {
    "random_flip", "random_resized_crop", "random_crop", "random_translation", "center_crop", "normalize",
    "instance_norm", "randaugment", "randaugment_fixmatch", "randaugment2", "imagenet_policy", "cifar10_policy",
    "svhn_policy", "cutout", "colorjitter", "randomgrayscale", "gaussian_blur", "gaussian_noise",
}  # fmt: skip
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def make_cfg(*names, **values):
    cfg = get_cfg_default()
    values = {"SIZE": (32, 32), "INTERPOLATION": "bicubic", "TRANSFORMS": names, **values}
    cfg.INPUT.merge_from_list([item for pair in values.items() for item in pair])
    return cfg


@pytest.fixture
def image():
    """A photo-like image, 48 px high and 60 px wide."""
    coarse = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    return T.ToPILImage()(T.Resize((48, 60))(coarse))


def test_names_are_the_documented_ones():
    assert set(TRANSFORM_NAMES) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_transform_runs_and_torchs_seed_alone_decides_it(name, image):
    transform = build_transform(make_cfg(name), is_train=True)
    outputs = []
    for other_seed in (1, 2):
        random.seed(other_seed)
        np.random.seed(other_seed)
        torch.manual_seed(7)
        outputs.append(torch.stack([transform(image) for _ in range(4)]))
    assert outputs[0].shape == (4, 3, 32, 32) and outputs[0].dtype == torch.float32
    assert torch.equal(*outputs)
    is_random = len({transform(image).numpy().tobytes() for _ in range(20)}) > 1
    assert is_random == (name not in ("center_crop", "normalize", "instance_norm"))


def test_training_of_clip_equals_torchvisions_composition(image):
    cfg = make_cfg("normalize", "random_flip", "random_resized_crop", PIXEL_MEAN=CLIP_MEAN, PIXEL_STD=CLIP_STD)
    crop = T.RandomResizedCrop((32, 32), scale=(0.08, 1.0), interpolation=T.InterpolationMode.BICUBIC)
    expected = T.Compose([crop, T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(CLIP_MEAN, CLIP_STD)])
    transform = build_transform(cfg, is_train=True)
    for seed in range(5):
        torch.manual_seed(seed)
        ours = transform(image)
        torch.manual_seed(seed)
        assert torch.equal(ours, expected(image))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(32, 32), (24, 32), (32, 24)])
def test_testing_equals_torchvisions_composition(mode, size, image):
    cfg = make_cfg("random_resized_crop", "random_flip", "normalize", SIZE=size, INTERPOLATION=mode)
    resize, normalize = T.Resize(32, T.InterpolationMode(mode)), T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    expected = T.Compose([resize, T.CenterCrop(size), T.ToTensor(), normalize])
    assert torch.equal(build_transform(cfg, is_train=False)(image), expected(image))


@pytest.mark.parametrize("size", [(36, 32), (43, 32), (32, 43), (40, 61)])
def test_other_ways_to_the_size_equal_pillows(size, image):
    """The image is already as long as wanted at its shorter edge, so nothing but the crop decides."""
    image = image.resize(size)
    left, top = ((edge - 32) // 2 for edge in image.size)
    expected = {
        "hf_crop": image.crop((left, top, left + 32, top + 32)),
        "squash": image.resize((32, 32), Image.BICUBIC),
    }
    if size == (40, 61):  # resized before
        long = int(32 * 61 / 40)
        expected["hf_crop"] = image.resize((32, long), Image.BICUBIC).crop((0, (long - 32) // 2, 32, (long + 32) // 2))
    for resize, pixels in expected.items():
        found = build_transform(make_cfg(RESIZE=resize), is_train=False)(image)
        assert torch.equal(found, T.ToTensor()(pixels)), resize


def test_the_default_is_found_under_the_key_that_earlier_features_were_kept_by():
    lines = (
        "ResizeShorterEdge(size=32, interpolation=bicubic, max_size=None, antialias=True)",
        "CenterCrop(size=(32, 32))",
        "ToTensor()",
    )
    expected = "\n".join(["Compose(", *(f"    {line}" for line in lines), ")"])
    assert repr(build_transform(make_cfg(), is_train=False)) == expected
    assert len({repr(build_transform(make_cfg(RESIZE=r), is_train=False)) for r in ("crop", "hf_crop", "squash")}) == 3


def test_testing_equals_clips_preprocessing(image):
    cfg = make_cfg("normalize", PIXEL_MEAN=CLIP_MEAN, PIXEL_STD=CLIP_STD)
    expected = open_clip.image_transform(32, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)
    assert_near(build_transform(cfg, is_train=False)(image), expected(image), 10 * EPS)  # a difference and a quotient


def test_testing_normalises_only_if_named(image):
    plain = build_transform(make_cfg("cutout"), is_train=False)(image)
    assert torch.equal(plain, build_transform(make_cfg("center_crop"), is_train=True)(image))
    named = build_transform(make_cfg("instance_norm"), is_train=False)(image)
    assert named.double().mean(dim=(1, 2)).abs().max() < 10 * EPS  # the values are about 1, their mean is rounded once


@pytest.mark.parametrize("names", [sorted(NAMES), sorted(NAMES, reverse=True)], ids=["sorted", "reversed"])
def test_order_is_the_documented_one_whatever_the_order_of_the_names(names):
    transform = build_transform(make_cfg(*names), is_train=True)
    assert [type(step).__name__ for step in transform.transforms] == [
        "RandomTranslation", "RandomCrop", "RandomResizedCrop", "RandomHorizontalFlip", "AutoAugment", "AutoAugment",
        "AutoAugment", "RandAugment", "RandomMagnitudeAugment", "RandomMagnitudeAugment", "ColorJitter",
        "RandomGrayscale", "RandomApply", "ToTensor", "Cutout", "Normalize", "GaussianNoise", "InstanceNormalization",
    ]  # fmt: skip


def test_random_crop_pads_by_crop_padding(image):
    small = image.resize((32, 32))
    padded = T.ToTensor()(T.Pad(4)(small))
    crops = {padded[:, y : y + 32, x : x + 32].numpy().tobytes() for y in range(9) for x in range(9)}
    transform = build_transform(make_cfg("random_crop"), is_train=True)
    torch.manual_seed(0)
    outputs = {transform(small).numpy().tobytes() for _ in range(30)}
    assert outputs <= crops and len(outputs) > 10
    assert build_transform(make_cfg("random_crop"), is_train=True)(image.resize((10, 12))).shape == (3, 32, 32)


def test_random_translation_crops_an_image_enlarged_by_9_8(image):
    bicubic = T.InterpolationMode.BICUBIC
    resized = T.Resize((32, 32), bicubic)(image)
    enlarged = T.ToTensor()(T.Resize((36, 36), bicubic)(resized))
    crops = {enlarged[:, y : y + 32, x : x + 32].numpy().tobytes() for y in range(5) for x in range(5)}
    transform = build_transform(make_cfg("random_translation"), is_train=True)
    torch.manual_seed(0)
    outputs = [transform(image).numpy().tobytes() for _ in range(100)]
    n_plain = outputs.count(T.ToTensor()(resized).numpy().tobytes())
    assert 35 <= n_plain <= 65
    assert n_plain + sum(output in crops for output in outputs) == 100


def test_cutout_zeroes_squares_of_a_copy():
    torch.manual_seed(0)
    areas = set()
    for _ in range(200):
        holes = Cutout(1, 4)(torch.ones(3, 8, 8)) == 0
        assert torch.equal(holes[0], holes[1]) and torch.equal(holes[0], holes[2])
        rows, columns = holes[0].any(dim=1), holes[0].any(dim=0)
        assert torch.equal(holes[0], rows[:, None] & columns)
        areas.add(int(rows.sum()) * int(columns.sum()))
    assert max(areas) == 16 and min(areas) == 4  # a centre in the corner leaves 2 x 2
    image = torch.ones(3, 64, 64)
    assert int((Cutout(3, 2)(image)[0] == 0).sum()) in range(5, 13)
    assert image.all()


def test_instance_norm_gives_mean_0_and_std_1():
    output = InstanceNormalization()(5 + 3 * torch.randn(3, 20, 20, dtype=torch.float64))
    np.testing.assert_allclose(output.mean(dim=(1, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(output.numpy().reshape(3, -1).std(axis=1, ddof=1), 1, atol=1e-6)
    assert torch.equal(InstanceNormalization()(torch.full((3, 4, 4), 0.5)), torch.zeros(3, 4, 4))


def test_gaussian_noise_has_its_mean_and_std_in_half_of_the_images():
    torch.manual_seed(0)
    outputs = [GaussianNoise(0.5, 0.15)(torch.zeros(3, 16, 16)) for _ in range(200)]
    noise = torch.stack([output for output in outputs if output.any()])
    assert 75 <= len(noise) <= 125
    assert abs(noise.mean() - 0.5) < 0.01 and abs(noise.std() - 0.15) < 0.01


def test_randaugment_and_blur_read_their_keys():
    cfg = make_cfg("randaugment", "gaussian_blur", RANDAUGMENT_N=3, RANDAUGMENT_M=5, GB_K=7, GB_P=0.25)
    steps = build_transform(cfg, is_train=True).transforms
    assert (steps[1].num_ops, steps[1].magnitude) == (3, 5)
    assert (steps[2].p, steps[2].transforms[0].kernel_size, steps[2].transforms[0].sigma) == (0.25, (7, 7), (0.1, 2.0))


def test_random_magnitude_augment_applies_n_operations_with_probability_p(monkeypatch, image):
    calls = []
    augment = RandomMagnitudeAugment(2, p=0.6)
    monkeypatch.setattr(T.RandAugment, "forward", lambda own, x: calls.append((own.num_ops, own.magnitude)) or x)
    torch.manual_seed(0)
    for _ in range(500):
        augment(image)
    assert 550 <= len(calls) <= 650  # 500 * 2 * 0.6 = 600, standard deviation 15
    assert set(calls) == {(1, magnitude) for magnitude in range(31)}


KEYS = {  # of INPUT that a transform reads, as the table in engine/data/transforms.py has them, and another value
    "center_crop": {"SIZE": (24, 24), "INTERPOLATION": "bilinear"},
    "random_translation": {"SIZE": (24, 24), "INTERPOLATION": "bilinear"},
    "random_crop": {"SIZE": (24, 24), "CROP_PADDING": 2},
    "random_resized_crop": {"SIZE": (24, 24), "RRCROP_SCALE": (0.5, 1.0), "INTERPOLATION": "bilinear"},
    "randaugment": {"RANDAUGMENT_N": 3, "RANDAUGMENT_M": 5},
    "randaugment_fixmatch": {"RANDAUGMENT_N": 3},
    "randaugment2": {"RANDAUGMENT_N": 3},
    "colorjitter": {"COLORJITTER_B": 0.1, "COLORJITTER_C": 0.1, "COLORJITTER_S": 0.2, "COLORJITTER_H": 0.3},
    "randomgrayscale": {"RGS_P": 0.7},
    "gaussian_blur": {"GB_P": 0.7, "GB_K": 7},
    "cutout": {"CUTOUT_N": 2, "CUTOUT_LEN": 5},
    "normalize": {"PIXEL_MEAN": [0.1, 0.2, 0.3], "PIXEL_STD": [0.1, 0.2, 0.3]},
    "gaussian_noise": {"GN_MEAN": 0.3, "GN_STD": 0.7},
}


def test_a_repr_says_what_decides_the_image():
    """By it a feature is found again: the same in every process, another for every other value."""
    said = []
    for name in TRANSFORM_NAMES:
        others = [{key: value} for key, value in KEYS.get(name, {}).items()]
        said += [repr(build_transform(make_cfg(name, **values))) for values in ({}, *others)]
        assert repr(build_transform(make_cfg(name))) in said
    assert len(set(said)) == len(said) and " at 0x" not in "".join(said)


def test_no_transform_resizes_and_normalises(image):
    cfg = make_cfg("random_resized_crop", "cutout", "normalize", NO_TRANSFORM=True, SIZE=(24, 32))
    resize = T.Resize((24, 32), T.InterpolationMode.BICUBIC)
    expected = T.Compose([resize, T.ToTensor(), T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)])(image)
    for is_train in (True, False):
        assert torch.equal(build_transform(cfg, is_train)(image), expected)


def test_unknown_names_are_refused_together():
    with pytest.raises(ValueError) as error:
        build_transform(make_cfg("random_flop", "normalize", "zzz"))
    near, far = str(error.value).splitlines()
    assert re.fullmatch(r"INPUT.TRANSFORMS has 'random_flop', expected some of: .* Did you mean random_flip\?", near)
    assert far.startswith("INPUT.TRANSFORMS has 'zzz'") and "Did you mean" not in far
    assert check_transforms("random_flip")[0].endswith("it must be a list of names. Write ['random_flip'].")


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("INTERPOLATION", "cubic", "one of: bilinear, bicubic, nearest"),
        *(("SIZE", size, "(height, width) in pixels, such as (224, 224).") for size in ((0, 32), (32,), (32, 1.5))),
        *(
            ("RRCROP_SCALE", scale, "(smallest, largest) share of the area, above 0 and at most 1")
            for scale in ((0.5,), ("a", 1.0), (1.0, 0.5), (0, 1), (0.5, 2))
        ),
        *(("PIXEL_MEAN", mean, "three numbers, of R, G and B") for mean in ([0.5], [0.5, 0.5, "b"])),
        *(("PIXEL_STD", std, "three numbers above 0") for std in ([0.5], [0.5, 0.5, "b"], [0.5, 0.5, 0])),
        ("RANDAUGMENT_M", 31, "a whole number from 0 to 30"),
        ("GB_K", 20, "an odd number of pixels above 0"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(key, value, expected):
    message = f"INPUT.{key} is {value!r}; it must be {expected}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        build_transform(make_cfg("randaugment", "gaussian_blur", **{key: value}), is_train=False)
