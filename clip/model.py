"""CLIP's two towers, with OpenAI's names, state-dict keys and arithmetic.

Paper: Learning Transferable Visual Models From Natural Language Supervision, Radford et al., ICML 2021,
https://arxiv.org/abs/2103.00020

    image_features = visual(image)                                            (B, D)
    text_features  = ln_final(transformer(token_embedding + positional_embedding))[EOT] @ text_projection   (C, D)
    logits         = exp(logit_scale) * cos(image_features, text_features)    (B, C)

B images, C texts, L tokens (or patches + 1), W a tower's width, D the joint width.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from .blocks import HEAD_DIM, LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer, differing_heads  # noqa: F401
from .state_dict import check_fit, check_mask, infer_sizes
from .two_towers import ForeignTower, TwoTowers


class CLIP(TwoTowers):
    """OpenAI's CLIP: an image tower and a causal text tower with a joint space.

    Args:
        embed_dim: D, width of the joint space.
        image_resolution: edge of the square input images, in pixels.
        vision_layers: number of transformer blocks (ViT), or blocks in each of the four stages (ResNet).
        vision_width: W of the image tower.
        vision_patch_size: edge of a patch in pixels (ViT), None for a ResNet.
        context_length: largest number of tokens in a text.
        vocab_size: number of rows in `token_embedding`.
        transformer_width: W of the text tower.
        transformer_heads: number of attention heads of the text tower.
        transformer_layers: number of blocks of the text tower.
        vision_heads: number of attention heads of the image tower; None: one for each 64 of its width.
        activation: of both towers' blocks, a name in ACTIVATIONS.
    """

    def __init__(
        self,
        embed_dim: int,
        image_resolution: int,
        vision_layers: int | tuple[int, int, int, int],
        vision_width: int,
        vision_patch_size: int | None,
        context_length: int,
        vocab_size: int,
        transformer_width: int,
        transformer_heads: int,
        transformer_layers: int,
        *,
        vision_heads: int | None = None,
        activation: str = "quick_gelu",
    ):
        if vision_patch_size is None:
            n_heads = vision_heads or vision_width * 32 // HEAD_DIM
            visual = ModifiedResNet(vision_layers, embed_dim, n_heads, image_resolution, vision_width)
        else:
            sizes = (vision_width, vision_layers, vision_heads or vision_width // HEAD_DIM)
            visual = VisionTransformer(image_resolution, vision_patch_size, *sizes, embed_dim, activation=activation)
        super().__init__(
            visual,
            embed_dim=embed_dim,
            context_length=context_length,
            vocab_size=vocab_size,
            width=transformer_width,
            heads=transformer_heads,
            layers=transformer_layers,
            activation=activation,
        )
        self.initialize_parameters()

    def initialize_parameters(self) -> None:
        """Draw OpenAI's start values for training from scratch."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        if isinstance(self.visual, ModifiedResNet):
            self.visual.initialize_parameters()
        width, n_layers = self.transformer.width, self.transformer.layers
        proj_std = width**-0.5 * (2 * n_layers) ** -0.5
        for block in self.transformer.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=proj_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=proj_std)
        nn.init.normal_(self.text_projection, std=width**-0.5)


class ModifiedResNet(nn.Module):
    """ResNet with a stem of three convolutions, average pooling before every stride, and attention as its last pool."""

    def __init__(self, layers: tuple[int, ...], output_dim: int, heads: int, input_resolution: int, width: int):
        super().__init__()
        self.output_dim = output_dim
        self.input_resolution = input_resolution
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        self.layer1 = _stage(width, width, layers[0], stride=1)
        self.layer2 = _stage(width * 4, width * 2, layers[1], stride=2)
        self.layer3 = _stage(width * 8, width * 4, layers[2], stride=2)
        self.layer4 = _stage(width * 16, width * 8, layers[3], stride=2)
        self.attnpool = AttentionPool2d(input_resolution // 32, width * 32, heads, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.type(self.conv1.weight.dtype)  # (B, 3, R, R)
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(bn(conv(x)), inplace=True)
        x = self.avgpool(x)  # (B, W, R / 4, R / 4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 32 W, R / 32, R / 32)
        return self.attnpool(x)  # (B, D)

    def initialize_parameters(self) -> None:
        std = self.attnpool.c_proj.in_features**-0.5
        for proj in (self.attnpool.q_proj, self.attnpool.k_proj, self.attnpool.v_proj, self.attnpool.c_proj):
            nn.init.normal_(proj.weight, std=std)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                nn.init.zeros_(block.bn3.weight)  # every block starts as the identity


def _stage(inplanes: int, planes: int, n_blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(planes * Bottleneck.expansion, planes) for _ in range(1, n_blocks)]
    return nn.Sequential(Bottleneck(inplanes, planes, stride), *rest)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1):
        super().__init__()
        outplanes = planes * self.expansion
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outplanes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outplanes)
        self.downsample = None
        if stride > 1 or inplanes != outplanes:
            # The pool is named "-1" so that the convolution and its norm keep the keys "0" and "1".
            conv = nn.Conv2d(inplanes, outplanes, 1, bias=False)
            parts = [("-1", nn.AvgPool2d(stride)), ("0", conv), ("1", nn.BatchNorm2d(outplanes))]
            self.downsample = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(self.avgpool(x)))
        return F.relu(x.add_(identity), inplace=True)


class AttentionPool2d(nn.Module):
    """Attention whose query is the mean of all positions; its keys are all positions and the mean."""

    def __init__(self, spacial_dim: int, embed_dim: int, num_heads: int, output_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.positional_embedding = nn.Parameter(torch.randn(spacial_dim**2 + 1, embed_dim) / embed_dim**0.5)
        self.k_proj = nn.Linear(embed_dim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.v_proj = nn.Linear(embed_dim, embed_dim)
        self.c_proj = nn.Linear(embed_dim, output_dim)

    def extra_repr(self) -> str:
        return differing_heads(self.q_proj.in_features, self.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(start_dim=2).transpose(1, 2)  # (B, W, H, H) -> (B, H * H, W)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)  # (B, 1 + H * H, W)
        x = x + self.positional_embedding.to(x.dtype)
        q, k, v = self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x)
        # (B, L, W) -> (B, heads, L, W / heads)
        q, k, v = (t.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v)  # (B, heads, 1, W / heads)
        return self.c_proj(x.flatten(start_dim=1))  # (B, D)


class VisionTransformer(nn.Module):
    """Patches and a class token through a transformer; the class token's state, projected, is the feature."""

    checkpoints_activations = False

    def __init__(
        self,
        input_resolution: int,
        patch_size: int,
        width: int,
        layers: int,
        heads: int,
        output_dim: int,
        *,
        activation: str = "quick_gelu",
    ):
        super().__init__()
        self.input_resolution = input_resolution
        self.output_dim = output_dim
        n_patches = (input_resolution // patch_size) ** 2
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(n_patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, activation=activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))

    def forward(self, x: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
        """Encodes images, with learned vectors behind their patches if there are any.

        Args:
            x: (B, 3, R, R), normalised pixels.
            prompts: (K, W) each. The first stands behind the patches, without a position; before block 1, 2, ... the
                others replace what the block before has made of these K.

        Returns:
            (B, D) features, not normalised.
        """
        x = self.conv1(x.type(self.conv1.weight.dtype))  # (B, 3, R, R) -> (B, W, H, H)
        x = x.flatten(start_dim=2).transpose(1, 2)  # -> (B, H * H, W)
        class_token = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([class_token, x], dim=1)  # (B, 1 + H * H, W)
        x = x + self.positional_embedding.to(x.dtype)
        if prompts:
            x = torch.cat([x, prompts[0].type(x.dtype).expand(x.shape[0], -1, -1)], dim=1)  # (B, 1 + H * H + K, W)
        x = self.ln_pre(x)
        x = x.permute(1, 0, 2)  # (B, L, W) -> (L, B, W)
        x = self._run_blocks(x, prompts) if prompts else self._run_plain_blocks(x)
        return self.ln_post(x[0]) @ self.proj  # (B, D)

    def checkpointed(self) -> VisionTransformer:
        """Returns this tower with activation checkpointing: the same tensors and the same bits in less memory.

        Of a block it keeps the input alone; the backward pass computes the block again, with the same random numbers.
        """
        tower = copy.copy(self)  # the loaded CLIP stays as it is
        tower.checkpoints_activations = True
        return tower

    def _run_blocks(self, x: Tensor, prompts: Sequence[Tensor]) -> Tensor:
        """The blocks on (L, B, W), whose last rows are replaced before a block that has a prompt: (1, B, W)."""
        n_blocks = len(self.transformer.resblocks)
        assert len(prompts) <= n_blocks, f"prompts before {len(prompts)} blocks; there are {n_blocks}"
        for i, block in enumerate(self.transformer.resblocks):
            if 0 < i < len(prompts):
                vectors = prompts[i][:, None].type(x.dtype).expand(-1, x.shape[1], -1)  # (K, B, W)
                x = torch.cat([x[: -len(vectors)], vectors])
            if i + 1 < n_blocks:
                x = self._run_block(block, x)
        normed = block.ln_1(x)  # the class token alone is read, so in the last block it alone is a query
        x = x[:1] + block.attn(normed[:1], normed, normed, need_weights=False)[0]
        return x + block.mlp(block.ln_2(x))

    def _run_plain_blocks(self, x: Tensor) -> Tensor:
        if not self.checkpoints_activations:
            return self.transformer(x)
        for block in self.transformer.resblocks:
            x = self._run_block(block, x)
        return x

    def _run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpoints_activations and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)


def convert_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Convert convolutions, linear layers, attention and projections in place; norms and embeddings stay float32."""
    for module in model.modules():
        if isinstance(module, ForeignTower):
            module.to(dtype)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear, nn.MultiheadAttention)):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
        for name in ("text_projection", "text_projection_bias", "proj"):
            parameter = getattr(module, name, None)
            if isinstance(parameter, nn.Parameter):
                parameter.data = parameter.data.to(dtype)


class Undrawn(TorchFunctionMode):
    """Within it, modules are built without drawing their start values, which take most of the time."""

    def __torch_function__(self, function: Callable, types: Sequence, args: Sequence = (), kwargs: dict | None = None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name in ("normal_", "uniform_", "kaiming_uniform_"):  # Tensor's or nn.init's
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if name == "randn" else function)(*args, **kwargs)


def build_model(
    state_dict: dict[str, Tensor], *, heads: Sequence[int] = (), activation: str = "", draw: bool = True
) -> CLIP:
    """The CLIP that a state dict in OpenAI's layout describes, in eval() mode and float32.

    Args:
        state_dict: OpenAI's keys, any float dtype; sizes are read from the shapes. It is not changed, and not kept.
        heads, activation: what the shapes leave open, see `infer_sizes`.
        draw: whether start values are drawn first, as OpenAI's does: what is drawn next depends on it.

    Raises:
        ValueError: keys are missing or unknown, or shapes do not fit together; see `infer_sizes`.
    """
    # OpenAI's archives carry three plain numbers beside the weights; the shapes say the same.
    # Older files of open_clip carry the mask of the text tower.
    numbers = ("input_resolution", "context_length", "vocab_size")
    check_mask(state_dict)
    state_dict = {key: value for key, value in state_dict.items() if key not in (*numbers, "attn_mask")}
    with nullcontext() if draw else Undrawn():
        model = CLIP(**infer_sizes(state_dict, heads, activation))
    check_fit(state_dict, model.state_dict())
    # Differs from OpenAI: float32 on every device, not float16; convert_weights gives the other where it is wanted.
    model.load_state_dict(state_dict)
    return model.eval()
