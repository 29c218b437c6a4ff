"""An exported folder from a stranger: whatever its files hold, no code in them runs."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from inference.classifier import Classifier


class Hostile:
    """Makes a file when it is read by pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("place", ["pickle", "torch", "backbone", "yaml"])
def test_no_code_in_an_exported_folder_runs(tiny_files, tmp_path, place):
    mark = tmp_path / "mark"
    backbone, tensors = tiny_files[1]["vit"], {"weight": torch.ones(2, 32), "scale": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "classifier.safetensors")
    if place == "pickle":
        (tmp_path / "classifier.safetensors").write_bytes(pickle.dumps(Hostile(mark)))
    elif place == "torch":
        torch.save({**tensors, "more": Hostile(mark)}, tmp_path / "classifier.safetensors")
    elif place == "backbone":
        backbone = tmp_path / "clip.pt"
        torch.save({"state_dict": Hostile(mark)}, backbone)
    size = f"!!python/object/apply:open ['{mark}', w]" if place == "yaml" else "(32, 32)"
    preprocessing = {"SIZE": size, "INTERPOLATION": f"open('{mark}', 'w')"} if place == "yaml" else {"SIZE": size}
    facts = {"classnames": ["cat", "dog"], "backbone": str(backbone), "preprocessing": preprocessing}
    (tmp_path / "config.json").write_text(json.dumps(facts))

    with pytest.raises(ValueError):
        Classifier.from_export(tmp_path)
    assert not mark.exists()
