"""What the methods that tune CLIP's towers share: activation checkpointing of the image tower."""

import pytest
import torch

from engine import TRAINER_REGISTRY
from engine.config.identity import config_digest
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import build_trainer, tiny_cfg
from trainers.tuned_towers import TunedTowersTrainer

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
METHODS = [n for n in TRAINER_REGISTRY.registered_names() if issubclass(TRAINER_REGISTRY.get(n), TunedTowersTrainer)]
every = pytest.mark.parametrize("name", METHODS)


@pytest.fixture
def cfg(tiny_files, tmp_path):
    """cfg(NAME, KEY=VALUE, ...): of a run without a test; the keys are the method's."""

    def cfg(name, **own):
        node, folder = TRAINER_REGISTRY.get(name).node, "-".join(map(str, [name, *own.values()]))
        own = {f"TRAINER.{node}.{key}": value for key, value in {"PREC": "fp32", **own}.items()}
        own |= {"TRAINER.NAME": name, "FEATURES.DIR": "", "OPTIM.NAME": "adamw", "TEST.NO_TEST": True}
        return tiny_cfg(
            tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *(x for pair in own.items() for x in pair)
        )

    return cfg


@every
@pytest.mark.parametrize("encoder", ["both", "vision"])
def test_with_activation_checkpointing_it_is_the_same_run(cfg, name, encoder):
    runs = [cfg(name, ENCODER=encoder, CHECKPOINT_ACTIVATIONS=value) for value in (False, True)]
    assert config_digest(runs[0]) == config_digest(runs[1])
    ends = []
    for run in runs:
        trainer = build_trainer(run)
        trainer.train()
        ends.append(trainer.model.prompt_learner.state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@every
def test_activation_checkpointing_keeps_less_and_computes_a_block_again(cfg, name):
    n_bytes, n_calls = [], []
    for value in (False, True):
        trainer, kept, calls = build_trainer(cfg(name, ENCODER="vision", CHECKPOINT_ACTIVATIONS=value)), {}, []
        weights = {
            x.untyped_storage().data_ptr() for x in (*trainer.model.parameters(), *trainer.clip_model.parameters())
        }
        block = trainer.model.image_encoder.transformer.resblocks[0]
        block.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = trainer.loss(trainer.model(golden_images("vit")), LABELS)
        n_bytes.append(sum(size for pointer, size in kept.items() if pointer not in weights))
        loss.backward()
        n_calls.append(len(calls))
    assert n_bytes[1] < n_bytes[0] / 3
    assert n_calls == [1, 2]


@every
def test_where_no_gradient_passes_the_image_tower_it_is_refused(cfg, name):
    with pytest.raises(ValueError, match=r"CHECKPOINT_ACTIVATIONS is True, but .* no gradient of .* Leave it out\.$"):
        build_trainer(cfg(name, ENCODER="text", CHECKPOINT_ACTIVATIONS=True))
