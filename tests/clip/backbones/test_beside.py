"""The path of a file with a library's config beside it gives the model that the library's own name gives."""

import pytest
import torch

import clip
from clip.clip import weights_sha256, weights_warning
from tests.support.backbones.tiny_hf import save_clip
from tests.support.backbones.tiny_open_clip import write_model


@pytest.mark.parametrize("library", ["open_clip", "hf"])
def test_a_path_beside_a_config_is_the_librarys_model(tmp_path, library):
    if library == "hf":
        save_clip(tmp_path / "model", activation="gelu")
        path = tmp_path / "model" / "model.safetensors"
    else:
        path = write_model(tmp_path / "model", "wide-heads") / "open_clip_model.safetensors"
    named, found = (clip.load(name, "cpu")[0] for name in (f"{library}:{path.parent}", path))
    images = torch.randn(2, 3, named.visual.input_resolution, named.visual.input_resolution)
    assert torch.equal(found.encode_image(images), named.encode_image(images))
    tokens = named.tokenizer(["a photo of a cat."])
    assert torch.equal(found.encode_text(tokens), named.encode_text(tokens))
    assert (found.preprocessing, weights_warning(path)) == (named.preprocessing, "")
    assert weights_sha256(path) == weights_sha256(f"{library}:{path.parent}")


def test_a_bare_copy_of_open_clips_weights_needs_what_its_config_said(tmp_path):
    """Heads of 80 in both towers: refused, until heads and activation are stated."""
    folder = write_model(tmp_path / "model", "wide-heads")
    path = tmp_path / "copy.safetensors"
    path.write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="which is no multiple of 64, a head's width. State both MODEL.BACKBONE.HEADS"):
        clip.load(path, "cpu")
    stated = clip.load(path, "cpu", heads=(2, 2), activation="gelu")[0]
    named = clip.load(f"open_clip:{folder}", "cpu")[0]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stated.encode_image(images), named.encode_image(images), atol=1e-5, rtol=1e-5)
    tokens = named.tokenizer(["a photo of a cat."])
    torch.testing.assert_close(stated.encode_text(tokens), named.encode_text(tokens), atol=1e-5, rtol=1e-5)
