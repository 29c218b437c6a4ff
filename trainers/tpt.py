"""TPT: the context is tuned anew for each test image, so that random views of it are sure of one answer.

Paper: Test-Time Prompt Tuning for Zero-Shot Generalization in Vision-Language Models, Shu, Nie, Huang, Yu, Goldstein,
       Anandkumar, Xiao, NeurIPS 2022, https://arxiv.org/abs/2209.07511

    x_1 ... x_V   an image as a test sees it, and V - 1 random crops of it
    p_v(V)        = softmax_i(s cos(g([V]_1 ... [V]_M [CLASS_i] .), f(x_v)))    g text tower, f image tower: frozen
    S             = the floor(CONFIDENT_SHARE V) views of lowest entropy H(p_v([V]))
    [V]'          = [V] after N_STEPS steps of AdamW on H(mean over v in S of p_v)
    p(y=i|x)      = p_1([V]')_i

Every image starts from the same [V]: the words of CTX_INIT, or with --model-dir what a run of CoOp has learned. Nothing
is trained before the test. The first step of AdamW moves each number by about LR, whatever the size of its gradient, so
the last bits of a gradient near zero show in the logits.

Where the authors' code and this project differ:
- On the ten fine-grained data sets AugMix changes their views besides; here all views are crops and flips.
- Their views depend on the order of the images. Here a view depends on SEED and the image's pixels alone, so a test,
  predict.py, other batches and several ranks see the same ones.
- They compute as PREC amp does, which the YAML here names, and leave out a step whose scaled gradient overflows; here
  the test ends with an error.

Run:   TRAINER=TPT bash scripts/coop/zeroshot.sh caltech101 rn50
Cost:  for each image V views through the image tower, and M + own tokens of C classes through the text tower twice
       forward and once backward (clip/prompts.py). CHUNK_ROWS bounds how many images are tuned at once.
"""

from __future__ import annotations

import hashlib
import math
import threading
from functools import cached_property

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode as CN

from clip.two_towers import TwoTowers
from engine import TRAINER_REGISTRY, build_transform
from engine.data.samplers import mix_seeds
from engine.data.transforms import needed_edge, steps

from .base import PromptedCLIP, untrained_errors
from .context import ContextLearner, ContextTrainer, build_prompt_encoder

WEIGHT_DECAY = 0.01  # AdamW's own default, which the authors leave
GRADIENT_SCALE = 2.0**10  # keeps small gradients in float16; a power of two changes no float32
DRAWING = threading.Lock()  # torchvision draws from the generator that all threads share


class Views:
    """Makes the views of an image: as INPUT says for tests, then `n_views - 1` as it says for training.

    Crops are interpolated bilinearly, as the authors' are, whatever INPUT.INTERPOLATION is.
    """

    def __init__(self, cfg: CN, n_views: int):
        crops = cfg.clone()
        crops.defrost()
        crops.INPUT.INTERPOLATION = "bilinear"
        self.plain, self.random = build_transform(cfg, is_train=False), build_transform(crops, is_train=True)
        self.seed, self.n_random = cfg.SEED, n_views - 1
        self.shorter_edge = needed_edge(cfg, [self.plain, self.random])

    def __call__(self, image: Image.Image) -> Tensor:
        """Returns the views (V, 3, H, W) of an RGB image; its pixels decide what is drawn."""
        digest = hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest()
        with DRAWING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix_seeds(self.seed, *image.size, int(digest, 16)))
            return torch.stack([self.plain(image), *(self.random(image) for _ in range(self.n_random))])


class PromptLearner(ContextLearner):
    """The prompts, and the context that every image starts from: a constant, which a checkpoint may bring."""

    def __init__(self, clip_model: TwoTowers, classnames: list[str], **options):
        super().__init__(clip_model, classnames, **options)
        start = self.ctx.detach()
        del self.ctx
        self.register_buffer("ctx", start)  # (M, D) float32


class CustomCLIP(PromptedCLIP):
    """CLIP whose context is tuned on the views of each image.

    Args:
        clip_model: The frozen CLIP.
        prompt_learner: Where each image starts.
        confident_share: Of the views, those of lowest entropy.
        lr, n_steps: Of AdamW.
        options: Those of `build_prompt_encoder`.
    """

    def __init__(
        self,
        clip_model: TwoTowers,
        prompt_learner: PromptLearner,
        *,
        confident_share: float = 0.1,
        lr: float = 5e-3,
        n_steps: int = 1,
        **options,
    ):
        super().__init__(clip_model, prompt_learner)
        self.encode_prompts = build_prompt_encoder(clip_model, prompt_learner, **options)
        self.confident_share, self.lr, self.n_steps = confident_share, lr, n_steps

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images by their views (B, V, 3, H, W), the plain one first: (B, C) logits.

        Raises:
            ValueError: If there is one view of each image, as for a method that tunes nothing.
        """
        if images.dim() != 5:
            raise ValueError(
                f"TPT is given images {tuple(images.shape)}, expected their views (B, V, 3, H, W), on which it tunes "
                "the context. `test_transform` makes them."
            )
        with torch.no_grad():
            features = self.image_encoder(images.flatten(0, 1)).float()  # (B V, E)
        return self.classify(features.unflatten(0, images.shape[:2]))

    def classify(self, features: Tensor) -> Tensor:
        """Classifies images by the features of their views (B, V, E), float32, not normalised: (B, C) logits."""
        encoder = self.encode_prompts
        n_at_once = max(1, encoder.chunk_rows // encoder.n_rows) if encoder.chunk_rows else len(features)
        with torch.inference_mode(False), torch.no_grad():  # in inference mode nothing has gradients
            parts = F.normalize(features.clone(), dim=-1).split(n_at_once)
            return torch.cat([self.logits(views[:, :1], self.tune(views))[:, 0] for views in parts])

    def tune(self, views: Tensor) -> Tensor:
        """Returns the contexts (B, M, D), each tuned on its image's views (B, V, E), normalised.

        AdamW steps each number by itself, so B images at once are B images one by one.
        """
        contexts = self.prompt_learner.context().repeat(len(views), 1, 1).requires_grad_()
        optim = torch.optim.AdamW([contexts], lr=self.lr, weight_decay=WEIGHT_DECAY)
        n_chosen, chosen = int(self.confident_share * views.shape[1]), None
        for _ in range(self.n_steps):
            with torch.enable_grad():
                log_p = self.logits(views, contexts).log_softmax(dim=-1)  # (B, V, C)
                if chosen is None:  # later steps keep the views of the first
                    chosen = entropy(log_p.detach()).topk(n_chosen, largest=False).indices[..., None]  # (B, n, 1)
                log_mean = log_p.take_along_dim(chosen, dim=1).logsumexp(dim=1) - math.log(n_chosen)  # (B, C)
                [gradient] = torch.autograd.grad(GRADIENT_SCALE * entropy(log_mean).sum(), [contexts])
            contexts.grad = gradient / GRADIENT_SCALE
            optim.step()
        return contexts.detach()

    def logits(self, views: Tensor, contexts: Tensor) -> Tensor:
        """Returns the logits (B, V, C) of views (B, V, E), normalised, by each image's own context (B, M, D)."""
        text_features = F.normalize(self.encode_prompts(contexts).float(), dim=-1)  # (B, C, E)
        return self.logit_scale.exp() * views @ text_features.mT


def entropy(log_p: Tensor) -> Tensor:
    """Returns the entropy in nats of probabilities over the last dimension, of which the logarithms are given."""
    return -(log_p.exp() * log_p).sum(dim=-1)


@TRAINER_REGISTRY.register()
class TPT(ContextTrainer):
    """Test-time prompt tuning."""

    node, learns = "TPT", False

    @staticmethod
    def add_config(cfg: CN) -> None:
        node = cfg.TRAINER.TPT = CN()
        node.N_CTX = 4  # number of context vectors; with CTX_INIT its number of tokens
        node.CTX_INIT = "a photo of a"  # words to start from; "": random
        node.CLASS_TOKEN_POSITION = "end"  # end, middle, front
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.N_VIEWS = 64  # of a test image, the plain one among them
        node.CONFIDENT_SHARE = 0.1  # of the views, those of lowest entropy, whose mean is made sure
        node.LR = 5e-3  # of AdamW; 0: the context stays as it starts
        node.N_STEPS = 1  # for each image
        node.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        node, errors = cfg.TRAINER.TPT, super().config_errors(cfg) + untrained_errors(cfg)
        n_chosen = int(node.CONFIDENT_SHARE * node.N_VIEWS)
        if not 1 <= n_chosen <= node.N_VIEWS:
            errors.append(
                f"TRAINER.TPT.CONFIDENT_SHARE is {node.CONFIDENT_SHARE} of {node.N_VIEWS} views (N_VIEWS), which is "
                f"{n_chosen}; it must be at least 1 view and at most all. Raise or lower one of the two."
            )
        if node.LR < 0:
            errors.append(f"TRAINER.TPT.LR is {node.LR}; it must be 0 (the context stays as it starts) or more.")
        if node.N_STEPS < 1:
            errors.append(f"TRAINER.TPT.N_STEPS is {node.N_STEPS}; it must be at least 1.")
        if node.N_VIEWS > 1 and "random_resized_crop" not in steps(cfg.INPUT, is_train=True)[0]:
            errors.append(
                "INPUT makes no random_resized_crop, so the views of an image would be the same. Add it to "
                "INPUT.TRANSFORMS, and leave INPUT.NO_TRANSFORM False."
            )
        return errors

    @cached_property
    def test_transform(self) -> Views:
        return Views(self.cfg, self.cfg.TRAINER.TPT.N_VIEWS)

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> CustomCLIP:
        node = self.cfg.TRAINER.TPT
        options = {"position": node.CLASS_TOKEN_POSITION, **self.start_options(**changes)}
        tuning = {"confident_share": node.CONFIDENT_SHARE, "lr": node.LR, "n_steps": node.N_STEPS}
        learner = PromptLearner(clip_model, classnames, **options)
        return CustomCLIP(clip_model, learner, chunk_rows=node.CHUNK_ROWS, **tuning)

    def model_inference(self, images: Tensor) -> Tensor:
        with self.autocast:
            return self.model(images).float()
