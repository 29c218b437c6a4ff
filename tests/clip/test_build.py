"""Building a CLIP from a state dict: OpenAI's nine architectures at their published sizes, and what is refused."""

import pytest
import torch

from clip.clip import _MODELS
from clip.model import build_model
from clip.state_dict import infer_sizes
from tests.support.tiny_clip import golden_state_dict

KINDS = ["vit", "rn"]

# Radford et al. 2021, tables 19 and 20: joint width, pixels, blocks and width of the image tower, width and heads of
# the text tower.
SIZES = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, 512, 8),
    "RN101": (512, 224, (3, 4, 23, 3), 64, 512, 8),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, 640, 10),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, 768, 12),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, 1024, 16),
    "ViT-B/32": (512, 224, 12, 768, 512, 8),
    "ViT-B/16": (512, 224, 12, 768, 512, 8),
    "ViT-L/14": (768, 224, 24, 1024, 768, 12),
    "ViT-L/14@336px": (768, 336, 24, 1024, 768, 12),
}


@pytest.mark.parametrize("name", _MODELS)
def test_every_architecture_is_inferred_from_its_shapes(name):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    config = open_clip.get_model_config(name.replace("/", "-").replace("@336px", "-336"))
    with torch.device("meta"):
        state_dict = open_clip.CLIP(**config).state_dict()
        model = build_model(state_dict)
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in state_dict.items()
    }
    visual, text = model.visual, model.transformer
    if name.startswith("RN"):
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        blocks, width = tuple(len(stage) for stage in stages), visual.conv3.out_channels
        assert visual.attnpool.num_heads == width * 32 // 64
    else:
        blocks, width = len(visual.transformer.resblocks), visual.conv1.out_channels
        assert {block.attn.num_heads for block in visual.transformer.resblocks} == {width // 64}
        assert visual.conv1.stride == (int(name[6:8]),) * 2
    (n_heads,) = {block.attn.num_heads for block in text.resblocks}
    assert (visual.output_dim, visual.input_resolution, blocks, width, text.width, n_heads) == SIZES[name]
    assert (len(text.resblocks), model.context_length, model.vocab_size) == (12, 77, 49408)


def test_towers_have_open_clips_heads_or_are_refused():
    """In the sizes of all models that open_clip has in OpenAI's layout."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    configs = [open_clip.get_model_config(name) for name in open_clip.list_models()]
    configs = [c for c in configs if c["vision_cfg"].get("patch_size") and "heads" in c["text_cfg"]]
    image_towers = {(c["vision_cfg"]["width"], c["vision_cfg"].get("head_width", 64)) for c in configs}
    assert {(1280, 80), (1408, 88), (1664, 104)} < image_towers
    for width, head_width in image_towers:
        state_dict = {**golden_state_dict("vit"), "visual.conv1.weight": torch.empty(width, 3, 16, 16, device="meta")}
        if head_width == 64:
            assert infer_sizes(state_dict)["vision_width"] == width  # heads: SIZES above
        else:
            with pytest.raises(ValueError, match=f" tower {width:,} wide. OpenAI's are at most 1,024.* State both "):
                build_model(state_dict)
            heads = (width // head_width, 1)
            assert infer_sizes(state_dict, heads, "gelu")["vision_heads"] == heads[0]
            with pytest.raises(ValueError, match="State both MODEL.BACKBONE.HEADS"):
                infer_sizes(state_dict, heads)
    for width, heads in {(c["text_cfg"]["width"], c["text_cfg"]["heads"]) for c in configs}:
        state_dict = {**golden_state_dict("vit"), "positional_embedding": torch.empty(77, width, device="meta")}
        stated = ((1, heads), "gelu") if width > 1024 else ()
        assert infer_sizes(state_dict, *stated)["transformer_heads"] == heads


@pytest.mark.parametrize("kind", KINDS)
def test_build_model_gives_eval_mode_and_float32_and_leaves_its_argument_alone(kind):
    numbers = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(1)}
    state_dict = {key: value.half() for key, value in golden_state_dict(kind).items()} | numbers
    n_keys = len(state_dict)
    model = build_model(state_dict)
    assert len(state_dict) == n_keys
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} == {model.dtype}
    for key, value in model.state_dict().items():
        assert torch.equal(value, golden_state_dict(kind)[key])
        assert value.data_ptr() != state_dict[key].data_ptr()


@pytest.mark.parametrize("kind", KINDS)
def test_without_drawing_it_is_the_same_clip_and_leaves_the_generator_alone(kind):
    torch.manual_seed(3)
    expected = torch.random.get_rng_state()
    model = build_model(golden_state_dict(kind), draw=False)
    for key, value in golden_state_dict(kind).items():
        assert torch.equal(model.state_dict()[key], value)
    assert torch.equal(torch.random.get_rng_state(), expected)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("vit", {"text_projection": None}, "has no text_projection. It must hold a whole CLIP in OpenAI's layout"),
        ("vit", {"visual.ln_post.bias": None}, "has no visual.ln_post.bias. It must hold"),
        ("rn", {"visual.layer2.0.bn1.weight": None}, r"has no visual.layer2.0.bn1.weight. It must hold"),
        ("vit", {"head.weight": (2, 2)}, "has the unknown key head.weight. It must hold"),
        ("vit", {"ln_final.weight": (32,)}, r"has ln_final.weight of shape \(32,\) instead of \(64,\). It must hold"),
        ("vit", {"positional_embedding": (64,)}, r"has positional_embedding of shape \(64,\), which has not 2 dim"),
        ("vit", {"visual.positional_embedding": (4, 64)}, "of 4 rows, which is no square of positions plus one"),
        ("rn", {"visual.attnpool.positional_embedding": (1, 128)}, "of 1 rows, which is no square of positions"),
        ("vit", {"positional_embedding": (77, 60)}, "has positional_embedding of a tower that is 60 wide, which is no"),
        ("vit", {"token_embedding.weight": (32000, 64)}, "has 32,000 tokens, so it belongs to another tokenizer than"),
        ("vit", {"attn_mask": (77, 77)}, "has an attn_mask that is not causal"),
        ("vit", {f"mine{i}": () for i in range(9)}, "key mine0; has the unknown key mine1; .* mine2; and 6 more"),
    ],
)
def test_a_state_dict_that_is_no_clip_is_refused(kind, changes, message):
    state_dict = golden_state_dict(kind)
    for key, shape in changes.items():
        if shape is None:
            del state_dict[key]
        else:
            state_dict[key] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        build_model(state_dict)


def test_a_state_dict_without_blocks_is_refused():
    state_dict = {key: value for key, value in golden_state_dict("vit").items() if "transformer" not in key}
    with pytest.raises(ValueError, match="has no visual.transformer.resblocks.0. It must hold"):
        build_model(state_dict)
