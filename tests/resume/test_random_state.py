"""The generators that every program shares: a seed decides them all, and their states come back."""

import random

import numpy as np
import pytest
import torch

from engine.random_state import random_state, restore_random_state, set_random_seed


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**40])
def test_seed_decides_all_three_generators(seed):
    def draw():
        set_random_seed(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = draw()
    assert draw() == first
    set_random_seed(seed + 1)
    assert torch.rand(1).item() != first[2]


def test_random_states_are_plain_and_come_back(tmp_path):
    torch.rand(3), np.random.randn(3), random.gauss(0, 1)  # a half of numpy's and Python's pairs is kept back
    torch.save(random_state(), tmp_path / "random.pt")
    expected = torch.rand(3).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1), random.random()
    torch.rand(5), np.random.rand(5), random.random()
    restore_random_state(torch.load(tmp_path / "random.pt", weights_only=True))
    assert (torch.rand(3).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1), random.random()) == expected
