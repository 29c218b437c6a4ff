"""Batch norms in eval mode, folded into the convolutions before them.

    g (W * x + c - m) / sqrt(v + eps) + b = (s W) * x + s (c - m) + b,   s = g / sqrt(v + eps)

W, c of the convolution; g, b weight and bias, m, v running mean and variance of the norm.
"""

from collections import Counter

import torch
from torch import fx, nn


def fold_norms(tower: nn.Module) -> int:
    """Folds, in place, what a tower has of batch norms that alone read a convolution; returns how many."""
    n_uses, n_folded = Counter(module for _, module in tower.named_modules(remove_duplicate=False)), 0
    for parent in tower.modules():
        for conv_name, norm_name in followed(parent):
            conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
            if can_fold(conv, norm) and n_uses[conv] == n_uses[norm] == 1:
                fold(conv, norm)
                setattr(parent, norm_name, nn.Identity())
                n_folded += 1
    return n_folded


class Children(fx.Tracer):
    """Traces what a module does with its children, and not into them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def followed(parent: nn.Module) -> list[tuple[str, str]]:
    """Returns the names of two children where the second alone reads the first, both called once."""
    if not {nn.Conv2d, nn.BatchNorm2d} <= {type(child) for child in parent.children()}:
        return []
    try:
        calls = [node for node in Children().trace(parent).nodes if node.op == "call_module"]
    except Exception:  # code that cannot be traced raises what it likes: its norms stay
        return []
    n_calls, pairs = Counter(call.target for call in calls), []
    for call in calls:
        source = call.args[0] if call.args else None
        if source in calls and len(source.users) == n_calls[source.target] == n_calls[call.target] == 1:
            pairs.append((source.target, call.target))
    return pairs


def can_fold(conv: nn.Module, norm: nn.Module) -> bool:
    """Says whether one linear map does what both do; weights in half precision would be rounded once more."""
    if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.training:
        return False
    return None not in (norm.weight, norm.running_var) and conv.weight.dtype in (torch.float32, torch.float64)


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Gives a convolution new tensors, with which it does what the batch norm behind it did, too."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = (0 if conv.bias is None else conv.bias.double()) - norm.running_mean.double()
    folded = scale[:, None, None, None] * conv.weight.double(), scale * bias + norm.bias.double()
    conv.weight, conv.bias = (nn.Parameter(x.to(conv.weight.dtype), requires_grad=False) for x in folded)
