"""A classifier from a finished run, or from words alone, for images in memory or on disk.

p(y=i|x) = softmax_i(logits_i(x))          the logits that the run's own test computes

classifier = Classifier.from_run("output/caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed1")
probabilities, names = classifier(["cat.jpg", "dog.jpg"])
classifier.topk("photos/", 5)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip.clip import available_models, weights_warning
from engine import Datum, build_transform
from engine.config.load import full_default, merge, require
from engine.data.image_files import images_below
from engine.data.image_io import read_image, to_rgb
from engine.data.transforms import needed_edge
from engine.device import pick_device
from engine.process_cache import sharing
from engine.random_state import same_random_state
from engine.run.classes import Classes
from engine.text import shorten
from trainers.backbone import input_values, shared_clip
from trainers.same_prompts import same_prompts_warning
from trainers.zsclip import ZeroshotCLIP

from .artefact import read_artefact
from .run_folder import Source, build_trainer, find_run, head_of, plugins_of, read_source

BUILDING = threading.RLock()  # while one is built, registries and random generators of the process are changed
Images = Any  # a PIL image, an array (H, W, 3) or (H, W) of bytes, a path, a folder, or a sequence of these


class Answers(NamedTuple):
    """What a classifier says of N images.

    Attributes:
        probabilities: (N, C) float32; a row adds up to 1.
        names: The most probable class of each image.
    """

    probabilities: Tensor
    names: list[str]


class Classifier:
    """Classifies images as a run's test does; several threads may use it at once.

    `from_run`, `zero_shot` and `from_export` make one. Its trainer's `warnings` say what is doubtful.

    Attributes:
        classnames: The C names that it tells apart, in the order of the columns.
        shorter_edge: For which image files are decoded, as in the run's test, see `to_rgb`; 0: whole.
        head: From image features to logits, where one matrix does it; else None.
    """

    def __init__(
        self, source: Source, *, device: str | None = None, models: dict | None = None, new_names: bool = False
    ):
        require_device(device)
        self._source, self._device = source, device
        self._models = {} if models is None else models  # loaded CLIPs, which classifiers of other classes share
        with BUILDING, sharing(self._models):
            self.trainer = build_trainer(source, use_cuda=device != "cpu")
        if new_names:  # of its own names the run has warned
            self.trainer.warnings.add(same_prompts_warning(self.trainer))
        self.classnames = list(self.trainer.dm.dataset.classnames)
        self.head = head_of(self.trainer)
        self._classify = self.head.logits if self.head else self.trainer.classify_features
        self._encoded_text = ExitStack()
        if self.head is None:  # of a method that has such text, the prompts are encoded once for all images
            self._encoded_text.enter_context(getattr(self.trainer, "fixed_text", nullcontext)())
        self._transform = self.trainer.test_transform or build_transform(self.trainer.cfg, is_train=False)
        self.shorter_edge = needed_edge(self.trainer.cfg, [self._transform])

    @classmethod
    def from_run(
        cls,
        path: str | Path,
        *,
        epoch: int | None = None,
        classnames: Sequence[str] | None = None,
        device: str | None = None,
        cache: bool = True,
    ) -> Classifier:
        """Returns the classifier that a run ended with. The data set is not needed.

        Args:
            path: The folder of a finished run, of a training or of a test, or one of its checkpoints.
            epoch: After how many epochs; None: the model that the run tested.
            classnames: Other classes to tell apart; None: the run's own.
            device: "cpu" or "cuda"; None: a GPU if there is one.
            cache: Whether features of image files are read from FEATURES.DIR and kept there.

        Raises:
            FileNotFoundError: If nothing is there.
            ValueError: If it is no run, is not finished, was made with other weights than those there now, or if what
                was learned knows no other classes.
        """
        folder, own_epoch = find_run(path)
        with BUILDING, plugins_of(folder):
            source = read_source(folder, epoch=own_epoch if epoch is None else epoch)
            if classnames is not None:
                source = source.with_classes(as_names(classnames))
            if not cache:
                source.cfg.FEATURES.DIR = ""
            return cls(source, device=device, new_names=classnames is not None)

    @classmethod
    def zero_shot(
        cls,
        backbone: str | Path,
        classnames: Sequence[str],
        template: str = "a photo of a {}.",
        *,
        device: str | None = None,
    ) -> Classifier:
        """Returns CLIP with a hand-made prompt; nothing is trained.

        Args:
            backbone: Name of a CLIP, or the path of its weights; its own preprocessing is used.
            classnames: C names.
            template: The prompt; `{}` stands for the name.
            device: "cpu" or "cuda"; None: a GPU if there is one.

        Raises:
            ValueError: If there are no names, or the template has no `{}`, or more braces than these.
        """
        require_device(device)
        require_template(template)
        cfg, models = full_default(), {}
        is_name = backbone in available_models() or not Path(backbone).expanduser().is_file()
        values = {
            "TRAINER.NAME": "ZeroshotCLIP",
            "TRAINER.ZSCLIP.PREC": "fp32",
            "MODEL.BACKBONE.NAME": str(backbone if is_name else Path(backbone).expanduser().absolute()),
            "DATASET.NAME": "ClassNames",
            "RUN.EVAL_ONLY": True,
            "SEED": 1,
            "INPUT.TRANSFORMS": ("normalize",),
        }
        require(merge(cfg, values, "zero_shot"))
        with BUILDING, sharing(models), same_random_state():
            clip = shared_clip(cfg, "fp32", pick_device(use_cuda=device != "cpu"))
        require(merge(cfg, input_values(clip.preprocessing), "zero_shot"))
        source = Source(cfg, ZeroshotCLIP, Classes(as_names(classnames), template), "", None)
        classifier = cls(source, device=device, models=models, new_names=True)
        classifier.trainer.warnings.add(weights_warning(backbone))
        return classifier

    @classmethod
    def from_export(cls, folder: str | Path, *, device: str | None = None) -> Classifier:
        """Returns the classifier that export.py has written to a folder; nothing in it is run.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is not what export.py writes, or the backbone's weights are others.
        """
        return cls(read_artefact(folder), device=device)

    def with_classes(self, classnames: Sequence[str]) -> Classifier:
        """Returns the same method for other classes.

        Raises:
            ValueError: If what was learned is learned for each class.
        """
        source = self._source.with_classes(as_names(classnames))
        return Classifier(source, device=self._device, models=self._models, new_names=True)

    @property
    def batch_size(self) -> int:
        """How many images are computed at once."""
        features, size = self.trainer.features, self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE
        return size if features is None else features.batch_size

    # What it says of images

    def __call__(self, images: Images) -> Answers:
        """Classifies images.

        Args:
            images: PIL images, arrays of bytes (H, W, 3) or (H, W), paths of files, folders, or one of these.

        Raises:
            ValueError: If there are none, or one does not decode; the message names it.
        """
        logits = self.logits(images)
        probabilities = logits.softmax(dim=-1)
        return Answers(probabilities, [self.classnames[i] for i in probabilities.argmax(dim=-1).tolist()])

    def topk(self, images: Images, k: int = 5) -> list[list[tuple[str, float]]]:
        """Returns for each image its k most probable classes with their probabilities, the best first.

        Raises:
            ValueError: As a call does; or if k is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1.")
        best = self(images).probabilities.topk(min(k, len(self.classnames)))
        return [
            [(self.classnames[i], value) for i, value in zip(row, values)]
            for row, values in zip(best.indices.tolist(), best.values.tolist())
        ]

    @torch.inference_mode()
    def logits(self, images: Images) -> Tensor:
        """Returns the logits (N, C), float32, on the CPU."""
        trainer, found = self.trainer, as_list(images)
        if not trainer.uses_features:
            return torch.cat([trainer.model_inference(batch).float().cpu() for batch in self._pixels(found)])
        batches = self.image_features(found).split(trainer.cfg.DATALOADER.TEST.BATCH_SIZE)
        return torch.cat([self._classify(batch.to(trainer.device)).float().cpu() for batch in batches])

    @torch.inference_mode()
    def image_features(self, images: Images) -> Tensor:
        """Returns the image tower's features (N, E), float32, not normalised, on the CPU.

        Raises:
            ValueError: If the method has no frozen image tower.
        """
        trainer, found = self.trainer, as_list(images)
        if not trainer.uses_features:
            raise ValueError(f"{trainer.cfg.TRAINER.NAME} has no frozen part from images to features.")
        are_files = all(isinstance(image, (str, os.PathLike)) for image in found)
        if are_files and len(found) > self.batch_size:  # fewer are sooner read than workers are started
            return trainer.features.read([Datum(os.fspath(path)) for path in found])
        return torch.cat([trainer.encode_images(batch).cpu() for batch in self._pixels(found)])

    def loading(self) -> AbstractContextManager[None]:
        """Within this `with` block, the processes that load image files for this thread live on from call to call."""
        features = self.trainer.features
        return nullcontext() if features is None else features.loading()

    def text_features(self) -> Tensor:
        """Returns the features of the classes (C, E), float32, normalised, on the CPU; CrossModal's rows are not.

        Raises:
            ValueError: If the method has none that all images share.
        """
        if self.head is None or self.head.bias is not None:
            raise ValueError(
                f"{self.trainer.cfg.TRAINER.NAME} has no text features that all images share: they depend on the "
                "image, or it learns from images alone."
            )
        return self.head.weight.cpu()

    def _pixels(self, images: Sequence[Any]) -> Iterator[Tensor]:
        """Yields the images in batches (B, 3, H, W) on the device, transformed as in a test."""
        size = self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE
        for start in range(0, len(images), size):
            found = (as_rgb(image, shorter_edge=self.shorter_edge) for image in images[start : start + size])
            batch = torch.stack([self._transform(image) for image in found])
            yield batch.to(self.trainer.device)


def as_list(images: Images) -> list[Any]:
    """Returns images in a list; in place of a folder the image files in it and below.

    Raises:
        ValueError: If there are none.
    """
    single = isinstance(images, (str, os.PathLike, Image.Image, np.ndarray))
    found = []
    for image in [images] if single else list(images):
        is_folder = isinstance(image, (str, os.PathLike)) and os.path.isdir(image)
        found += images_below(Path(image)) if is_folder else [image]
    if not found:
        raise ValueError("There are no images. Give at least one.")
    return found


def as_rgb(image: Any, *, shorter_edge: int = 0) -> Image.Image:
    """Returns a PIL image, an array of bytes or the file at a path as RGB, as training reads files.

    `shorter_edge` is for files, see `to_rgb`; an image in memory is taken whole.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, shorter_edge=shorter_edge)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
            raise ValueError(
                f"An array is {image.dtype} of shape {image.shape}; it must be uint8, (H, W, 3) or (H, W). Scale it to "
                "0 ... 255 and convert it."
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"An image is of type {type(image).__name__}; give PIL images, arrays or paths.")
    if 0 in image.size:
        raise ValueError(f"An image is {image.width} x {image.height} pixels; it must have at least one.")
    return to_rgb(image)


def as_names(classnames: Sequence[str]) -> list[str]:
    """Returns class names in a list; raises ValueError for a single text, whose letters would be the classes."""
    names = [] if isinstance(classnames, str) else list(classnames)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"The classes are {shorten(classnames)}; they must be a list of names: ['cat', 'dog'].")
    return names


def require_template(template: str) -> None:
    """Raises ValueError unless a name can stand in the template."""
    if template.count("{}") != 1 or {"{", "}"} & set(template.replace("{}", "")):
        raise ValueError(f'The template is {template!r}; it must have {{}} for the name, once: "a photo of a {{}}."')


def require_device(device: str | None) -> None:
    """Raises ValueError unless the device is there."""
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"The device is {device!r}; it must be cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("The device is cuda, but torch finds no GPU here. Use cpu.")
