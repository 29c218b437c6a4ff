"""Models of transformers: both towers, prompts, tokens and images are those of the library itself."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import clip
from clip.backbones import find_backbone
from clip.clip import weights_sha256
from clip.tokens import ClipTokenizer, OtherTokenizer
from tests.support.backbones.tiny_hf import SIDE, change, clip_vocabulary, save_chinese_clip, save_clip, save_siglip
from tests.support.tolerance import EXACT, assert_near
from trainers.context import ContextLearner, build_prompt_encoder

TEXTS = ["a photo of a cat.", "a drawing of the sea.", "x"]
NAMES = ["cat", "big house", "rose"]  # of several tokens in the small vocabularies
KINDS = {
    "quick_gelu": lambda folder: save_clip(folder),
    "gelu, old end": lambda folder: save_clip(folder, activation="gelu", eos=2),
    "heads of 80": lambda folder: save_clip(folder, activation="gelu_pytorch_tanh", width=160),
    "metaclip_2": lambda folder: save_clip(folder, family="MetaClip2"),
    "siglip": save_siglip,
    "siglip 2": lambda folder: save_siglip(folder, version=2),
    "siglip, a border left out": lambda folder: save_siglip(folder, patch_size=9),
    "chinese_clip": save_chinese_clip,
}
OPEN = [kind for kind in KINDS if kind != "chinese_clip"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(kind): the folder of a model of a kind, and the library's own model of it."""
    import transformers

    made = {}

    def saved(kind):
        if kind not in made:
            folder = KINDS[kind](tmp_path_factory.mktemp("hf"))
            model = transformers.AutoModel.from_pretrained(folder).eval().requires_grad_(False)
            made[kind] = folder, model
        return made[kind]

    return saved


@pytest.fixture(scope="module")
def images():
    """Images with odd sizes, the centre of which ends at half a pixel."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((45, 32), (33, 64), (32, 35), (101, 57), (20, 31))
    small = (torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8).numpy() for _ in sizes)
    return [Image.fromarray(array).resize(size) for array, size in zip(small, sizes)]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_features_and_logits_are_the_librarys(saved, images, kind):
    import transformers

    folder, theirs = saved(kind)
    model, transform = clip.load(f"hf:{folder}", device="cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    padding = {"padding": "max_length", "max_length": 24} if "siglip" in kind else {"padding": True}
    inputs = tokenizer(TEXTS, return_tensors="pt", **padding)
    if "siglip" in kind:
        del inputs["attention_mask"]  # Google's tokenizers give none: the model saw its padding in training
    inputs["pixel_values"] = processor(images, return_tensors="pt")["pixel_values"]
    expected = theirs(**inputs)
    pixels, tokens = torch.stack([transform(image) for image in images]), model.tokenizer(TEXTS)
    torch.testing.assert_close(pixels, inputs["pixel_values"], atol=1e-5, rtol=0)
    assert_near(F.normalize(model.encode_image(pixels), dim=-1), expected.image_embeds, 1e-5)
    assert_near(F.normalize(model.encode_text(tokens), dim=-1), expected.text_embeds, 1e-5)
    logits = model(pixels, tokens)[0] + (model.logit_bias or 0)
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, EXACT)])
@pytest.mark.parametrize("class_specific, position", [(False, "end"), (True, "middle")])
@pytest.mark.parametrize("kind", OPEN)
def test_prompts_are_those_of_the_librarys_text_tower(saved, kind, class_specific, position, dtype, tolerance):
    folder, theirs = saved(kind)
    model = clip.load(f"hf:{folder}", device="cpu")[0].requires_grad_(False).to(dtype)
    torch.manual_seed(0)
    learner = ContextLearner(model, NAMES, n_ctx=4, class_specific=class_specific, position=position)
    ctx = torch.randn_like(learner.ctx, dtype=dtype).requires_grad_()
    expected = prompts_by_hook(theirs.to(dtype), folder, ctx, position)
    found = build_prompt_encoder(model, learner)(ctx)
    gradients = [torch.autograd.grad(features.sin().sum(), ctx)[0] for features in (found, expected)]
    theirs.float()
    assert_near(found, expected, tolerance)
    assert_near(*gradients, tolerance)


def prompts_by_hook(theirs, folder, ctx, position):
    """The library's features of "x x x x name.", with the context for the embeddings of x."""
    import transformers

    tokenizer, text = transformers.AutoTokenizer.from_pretrained(folder), theirs.config.text_config
    texts = [f"x x x x {name}." for name in NAMES]
    padding = {"padding": "max_length", "max_length": text.max_position_embeddings, "return_tensors": "pt"}
    tokens = tokenizer(texts, **padding)["input_ids"]
    n_context = len(tokenizer("x x x x", add_special_tokens=False)["input_ids"])
    assert n_context == 4
    start = tokens[0].tolist().index(tokenizer("x", add_special_tokens=False)["input_ids"][0])
    n_own = [len(tokenizer(f"x {name}", add_special_tokens=False)["input_ids"]) - 1 for name in NAMES]
    n_between = n_own if position == "middle" else [0] * len(NAMES)

    def put(module, inputs, words):
        rows = []
        for row, own, n in zip(words, ctx.expand(len(words), -1, -1), n_between, strict=True):
            rest = row[start + 4 :]
            rows.append(torch.cat([row[:start], own[:2], rest[:n], own[2:], rest[n:]]))
        return torch.stack(rows)

    # A CLIP is read at the place of its end token, which the tokens have: moving the name does not move it.
    hook = theirs.text_model.embeddings.token_embedding.register_forward_hook(put)
    try:
        return theirs.get_text_features(input_ids=tokens).pooler_output
    finally:
        hook.remove()


def test_clips_vocabulary_is_read_by_clips_tokenizer(saved):
    import transformers

    folder, _ = saved("quick_gelu")
    ours = find_backbone(f"hf:{folder}").load().tokenizer
    assert isinstance(ours, ClipTokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for name in (
        "737-800",
        "bird of paradise",
        "Spitz (dog)!",
        "crème brûlée",
        "汉字",
        "🐕 x",
        "it's  the\tone",
        "A_b.c",
    ):
        ids = theirs(name)["input_ids"]
        assert ours([name])[0, : len(ids)].tolist() == ids


def test_another_vocabulary_is_read_by_its_own_tokenizer(tmp_path):
    import transformers

    vocabulary, merges = clip_vocabulary()
    merges = merges[:1000]
    kept = [token for token in vocabulary if token in {"".join(pair) for pair in merges} or vocabulary[token] < 512]
    ids = {token: i for i, token in enumerate([*kept, "<|startoftext|>", "<|endoftext|>"])}
    folder = save_clip(tmp_path, eos=len(ids) - 1, text={"vocab_size": len(ids), "max_position_embeddings": 30})
    theirs = transformers.CLIPTokenizer(vocab=ids, merges=merges)
    theirs.save_pretrained(folder)
    ours = find_backbone(f"hf:{folder}").load().tokenizer
    assert isinstance(ours, OtherTokenizer)
    texts = ["a photo of a cat.", "Maltese"]
    expected = theirs(texts, padding="max_length", max_length=30, return_tensors="pt")
    assert torch.equal(ours(texts), expected["input_ids"])
    assert ours.end_of(ours(texts)).tolist() == (expected["attention_mask"].sum(dim=1) - 1).tolist()
    with pytest.raises(ValueError, match="at most 30"):
        ours(["word " * 30])


def test_a_text_tower_of_other_blocks_takes_no_context(saved, tmp_path):
    folder, _ = saved("chinese_clip")
    with pytest.raises(ValueError, match="Chinese CLIP's BERT"):
        ContextLearner(find_backbone(f"hf:{folder}").load(), NAMES)
    model = find_backbone(f"hf:{save_clip(tmp_path, activation='silu')}").load()
    assert model.encode_text(model.tokenizer(TEXTS)).shape == (3, 24)
    with pytest.raises(ValueError, match="activation silu"):
        ContextLearner(model, NAMES)


def test_weights_in_parts(saved, tmp_path):
    import transformers
    from safetensors.torch import load_file, save_file

    folder, theirs = saved("quick_gelu")
    save_clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path, max_shard_size="3MB")
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert len(parts) > 1 and isinstance(theirs, transformers.CLIPModel)
    model = find_backbone(f"hf:{tmp_path}").load()
    images = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(model.encode_image(images), find_backbone(f"hf:{folder}").load().encode_image(images))
    before = weights_sha256(f"hf:{tmp_path}")
    tensors = load_file(parts[-1])
    save_file({key: value + 1 for key, value in tensors.items()}, parts[-1], {"format": "pt"})
    assert weights_sha256(f"hf:{tmp_path}") not in (before, None)
    parts[0].unlink()
    assert weights_sha256(f"hf:{tmp_path}") is None
    with pytest.raises(FileNotFoundError, match=f"has no {parts[0].name}"):
        find_backbone(f"hf:{tmp_path}").load()


def test_half_precision_weights_are_loaded_in_float32(tmp_path):
    import transformers

    folder = save_clip(tmp_path)
    transformers.CLIPModel.from_pretrained(folder).half().save_pretrained(folder)
    model = find_backbone(f"hf:{folder}").load()
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    change(folder, "config.json", torch_dtype="float16")
    assert find_backbone(f"hf:{folder}").load().dtype == torch.float32
