"""Models of open_clip compute here what open_clip computes, and learned prompts what its own text tower would."""

import shutil

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip import clip
from tests.support.backbones.tiny_open_clip import CLOSED, MODELS, OPEN, write_model
from trainers.context import ContextLearner, build_prompt_encoder

TEXTS = ["a photo of a dog.", "the golden retriever", "stop sign, a photo"]
NAMES = ["dog", "golden_retriever", "stop sign"]
WHY = {"coca": "a decoder: it is CoCa's", "roberta": "of type roberta", "layer-scale": "other blocks than CLIP's"}
ODD = [
    "Café  au lait",
    "don't",
    "AT&amp;T",
    "ﬁre",
    "日本の犬",
    "🐕 dog",
    "naïve—dash",
    "<b>x</b>",
    "a_b-c/d",
    "",
    "ÃƒÂ©",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns the folder of a kind of model, written once."""
    root, written = tmp_path_factory.mktemp("open_clip"), {}

    def folder_of(kind):
        if kind not in written:
            written[kind] = write_model(root / kind, kind)
        return written[kind]

    return folder_of


def original(folder):
    """open_clip's own model, transform of images, and tokenizer."""
    name = f"local-dir:{folder}"
    model, transform = open_clip.create_model_from_pretrained(name)
    return model.eval(), transform, open_clip.get_tokenizer(name)


def odd_images():
    """Large patches of colour, two images of odd sizes: fine noise looks the same to a ResNet."""
    rng, images = np.random.default_rng(0), []
    for width, height in ((91, 47), (66, 133)):
        patches = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        images.append(patches.resize((width, height), Image.Resampling.NEAREST))
    return images


@pytest.mark.parametrize("kind", MODELS)
def test_features_and_logits_are_open_clips(folders, kind):
    """Images of odd sizes through its preprocessing and tower, texts through its tokenizer and tower."""
    theirs, their_transform, their_tokenizer = original(folders(kind))
    ours, transform = clip.load(f"open_clip:{folders(kind)}", device="cpu")
    images = torch.stack([transform(image) for image in odd_images()])
    tokens = ours.tokenizer(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(images, torch.stack([their_transform(image) for image in odd_images()]))
        assert torch.equal(tokens, their_tokenizer(TEXTS))
        image_features = F.normalize(theirs.encode_image(images), dim=-1)
        text_features = F.normalize(theirs.encode_text(tokens), dim=-1)
        torch.testing.assert_close(F.normalize(ours.encode_image(images), dim=-1), image_features, atol=1e-5, rtol=0)
        torch.testing.assert_close(F.normalize(ours.encode_text(tokens), dim=-1), text_features, atol=1e-5, rtol=0)
        logits = theirs.logit_scale.exp() * image_features @ text_features.T
        torch.testing.assert_close(ours(images, tokens)[0], logits, atol=1e-5 * float(logits.abs().max()), rtol=0)
    assert ours.logit_bias == (None if theirs.logit_bias is None else theirs.logit_bias.item())
    assert bool(ours.closed) == (kind in CLOSED)


@pytest.mark.parametrize("kind", CLOSED)
def test_a_tower_that_cannot_be_entered_says_why(folders, kind):
    model, _ = clip.load(f"open_clip:{folders(kind)}", device="cpu")
    with pytest.raises(ValueError, match=f"text tower of this backbone cannot be entered: .*{WHY[kind]}"):
        ContextLearner(model, NAMES, n_ctx=4)


@pytest.mark.parametrize(("old", "new"), [('"eos_id": 2', '"eos_id": 5'), ('"eos"', '"argmax"')])
def test_a_tower_that_is_read_where_no_text_ends_is_not_entered(folders, tmp_path, old, new):
    folder = shutil.copytree(folders("worldwide"), tmp_path / "copy")
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text().replace(old, new))
    theirs, _, their_tokenizer = original(folder)
    ours, _ = clip.load(f"open_clip:{folder}", device="cpu")
    assert "but its tokenizer ends a text with token 2" in ours.closed
    assert torch.equal(ours.encode_text(ours.tokenizer(TEXTS)), theirs.encode_text(their_tokenizer(TEXTS)))


@pytest.mark.parametrize("kind", ["vit", "custom-text", "clipa", "clips", "siglip", "worldwide"])
def test_odd_names_become_open_clips_tokens(folders, kind):
    """And the longest text that open_clip does not cut is the longest that is taken."""
    ours = clip.load(f"open_clip:{folders(kind)}", device="cpu")[0].tokenizer
    theirs = open_clip.get_tokenizer(f"local-dir:{folders(kind)}")
    assert torch.equal(ours(ODD), theirs(ODD))
    (dog,) = ours.encode("dog")
    longest = " ".join(["dog"] * int((theirs("dog " * 99) == dog).sum()))
    assert torch.equal(ours([longest]), theirs(longest))
    with pytest.raises(ValueError, match="tokens long; at most 16 are allowed"):
        ours([f"{longest} dog"])


def formula(theirs, tokens, ctx, first):
    """Features of prompts by open_clip's modules: embed, replace, add positions, transform, norm, pool, project."""
    text = getattr(theirs, "text", theirs)
    x = text.token_embedding(tokens)
    x = torch.cat([x[:, :first], ctx.expand(len(x), -1, -1), x[:, first + ctx.shape[-2] :]], dim=1)
    x = text.ln_final(text.transformer(x + text.positional_embedding, attn_mask=text.attn_mask))
    pool = getattr(text, "pool_type", None) or text.text_pool_type
    eos = getattr(text, "eos_id", None) or text.text_eos_id
    x = open_clip.transformer.text_global_pool(x, tokens, pool, eos_token_id=eos)
    if text.text_projection is None:
        return x
    return text.text_projection(x) if isinstance(text.text_projection, torch.nn.Linear) else x @ text.text_projection


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kind", OPEN)
def test_learned_prompts_are_those_of_open_clips_text_tower(folders, kind, dtype, atol):
    """Features and the gradient of the context, by the formula on the library's own modules."""
    theirs, _, their_tokenizer = original(folders(kind))
    ours = clip.load(f"open_clip:{folders(kind)}", device="cpu")[0].to(dtype)
    torch.manual_seed(1)
    learner = ContextLearner(ours, NAMES, n_ctx=4)
    ctx = learner.ctx.data.to(dtype) * 20  # as large as embeddings of words
    values, gradients = [], []
    encoder = build_prompt_encoder(ours, learner)
    texts = ["x x x x " + name.replace("_", " ") + "." for name in NAMES]
    first = 0 if kind == "siglip" else 1
    for encode in (encoder, lambda ctx: formula(theirs.to(dtype), their_tokenizer(texts), ctx, first)):
        own = ctx.clone().requires_grad_()
        features = F.normalize(encode(own), dim=-1)
        features.square().mul(torch.arange(features.shape[1])).sum().backward()
        values.append(features.detach())
        gradients.append(own.grad / own.grad.abs().max())
    torch.testing.assert_close(*values, atol=atol, rtol=0)
    torch.testing.assert_close(*gradients, atol=atol, rtol=0)
