"""How many rows of the text tower fit a GPU's free memory, with all that waits for the backward pass.

Of each row, a frozen block keeps

    2 W            what enters the layer norms, in float32 at least
    7 W + 2 H K    queries, keys, values, some of them twice; weights over at most K keys, before and after a cut;
                   less where few rows attend at once (clip/packed_tower.py)
    2 F            what enters the activation, and its sigmoid

so a row takes at most (layers + 1) times that; one block more stands for what a block computes meanwhile.

W width, H heads, F hidden width of a block's network.
"""

import torch

from clip.blocks import Transformer

SHARE = 0.5  # of the free memory; the rest is for images, the optimiser and what fragments


def bytes_per_row(transformer: Transformer, n_keys: int, dtype: torch.dtype) -> int:
    """Returns a bound on the bytes that one row of a chunk takes in a training step.

    Args:
        transformer: The text tower's blocks.
        n_keys: K, the most positions that a prompt is encoded with.
        dtype: Of the tower's weights.
    """
    block, size = transformer.resblocks[0], dtype.itemsize
    width, hidden, heads = transformer.width, block.mlp.c_fc.out_features, block.attn.num_heads
    per_block = (7 * width + 2 * heads * n_keys + 2 * hidden) * size + 2 * width * max(size, 4)
    return (transformer.layers + 1) * per_block


def rows_that_fit(free_bytes: int, row_bytes: int) -> int:
    """Returns the rows for SHARE of the free memory, at least one: a chunk holds one class in any case."""
    return max(1, int(free_bytes * SHARE) // row_bytes)
