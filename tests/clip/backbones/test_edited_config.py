"""The number of heads stands in the config alone: after an edit the same weights are another model."""

import json

import pytest
import torch

from clip import clip
from engine.features.reader import weights_digest
from tests.support.backbones.tiny_hf import save_clip
from tests.support.backbones.tiny_open_clip import write_model

HF = "config.json", lambda content: content["vision_config"].update(num_attention_heads=4)
OPEN_CLIP = "open_clip_config.json", lambda content: content["model_cfg"]["vision_cfg"].update(head_width=16)


@torch.no_grad()
@pytest.mark.parametrize("library", ["hf", "open_clip"])
def test_neither_results_nor_cached_features_are_taken_for_those_of_an_edited_config(tmp_path, library):
    folder = save_clip(tmp_path / "hf") if library == "hf" else write_model(tmp_path / "open_clip", "vit")
    image, name, found = torch.rand(2, 3, 32, 32), f"{library}:{folder}", []
    file, edit = HF if library == "hf" else OPEN_CLIP
    for _ in range(2):
        tower = clip.load(name, "cpu")[0].visual
        found.append((tower(image), clip.weights_sha256(name), weights_digest(tower)))
        content = json.loads((folder / file).read_text())
        edit(content)
        (folder / file).write_text(json.dumps(content))
    (features, in_results, in_cache), (others, *digests) = found
    assert not torch.allclose(features, others)
    assert in_results != digests[0] and in_cache != digests[1]
