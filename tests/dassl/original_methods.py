"""Methods and a data set in the form of the original's files, each with parts of the loop of its own.

It is here to be named by --plugin, like original_trainer.py.
"""

import os
import os.path as osp
import pickle
import time

import torch
import torch.nn as nn
from torch.cuda.amp import GradScaler, autocast
from torch.nn import functional as F
from tqdm import tqdm
from yacs.config import CfgNode as CN

from clip import clip
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import listdir_nohidden, mkdir_if_missing, save_checkpoint

CUSTOM_TEMPLATES = {"Folder": "a photo of a {}.", "Pets": "a photo of a {}, a type of pet."}


def extend_cfg(cfg):
    cfg.TRAINER.ADAPTERS = CN()
    cfg.TRAINER.ADAPTERS.PREC = "amp"


def load_clip_to_cpu(cfg):
    model_path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    return clip.build_model(torch.load(model_path, map_location="cpu"))


@TRAINER_REGISTRY.register()
class PlainZeroshot(TrainerX):
    """Builds and tests, and trains nothing: it has no model to register."""

    def build_model(self):
        clip_model = load_clip_to_cpu(self.cfg).to(self.device)
        template = CUSTOM_TEMPLATES[self.cfg.DATASET.NAME]
        prompts = [template.format(c.replace("_", " ")) for c in self.dm.dataset.classnames]
        prompts = torch.cat([clip.tokenize(p) for p in prompts]).to(self.device)
        with torch.no_grad():
            text_features = clip_model.encode_text(prompts)
        self.text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        self.clip_model = clip_model

    def model_inference(self, image):
        image_features = self.clip_model.encode_image(image)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        return self.clip_model.logit_scale.exp() * image_features @ self.text_features.t()


class AdaptedCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        dim = clip_model.visual.output_dim
        self.clip_model, self.dtype = clip_model, clip_model.dtype
        self.image_adapter, self.text_adapter, self.dropout = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Dropout(0.1)
        if cfg.TRAINER.ADAPTERS.PREC == "fp16":
            self.image_adapter.half()
        self.prompts = torch.cat([clip.tokenize(f"a photo of a {name}.") for name in classnames])

    def forward(self, image, label=None):
        image_features = self.clip_model.encode_image(image.type(self.dtype))
        text_features = self.clip_model.encode_text(self.prompts.to(image.device))
        image_features = image_features + self.dropout(self.image_adapter(image_features))
        text_features = text_features + self.text_adapter(text_features)
        logits = F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
        logits = self.clip_model.logit_scale.exp() * logits
        if self.image_adapter.training:
            return F.cross_entropy(logits, label), logits
        return logits


@TRAINER_REGISTRY.register()
class Adapters(TrainerX):
    """Three models, two optimisers; takes the loop's images, labels and domains."""

    def check_cfg(self, cfg):
        assert cfg.TRAINER.ADAPTERS.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        clip_model = load_clip_to_cpu(cfg).float().requires_grad_(False)
        self.model = AdaptedCLIP(cfg, self.dm.dataset.classnames, clip_model).to(self.device)
        self.optim = build_optimizer(self.model.image_adapter, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.optim_text = build_optimizer([{"params": self.model.text_adapter.parameters(), "lr": 0.5}], cfg.OPTIM)
        self.register_model("image_adapter", self.model.image_adapter, self.optim, self.sched)
        self.register_model("text_adapter", self.model.text_adapter, self.optim_text)
        self.register_model("dropout", self.model.dropout)
        self.scaler = GradScaler() if cfg.TRAINER.ADAPTERS.PREC == "amp" else None
        self.seen = []

    def forward_backward(self, batch):
        image, label, domain = self.parse_batch_train(batch)
        self.seen.append((self.epoch, batch["index"].tolist(), self.model.dropout.training))
        if self.cfg.TRAINER.ADAPTERS.PREC == "amp":
            with autocast():
                loss, output = self.model(image, label)
            self.optim.zero_grad()
            self.optim_text.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.step(self.optim_text)
            self.scaler.update()
        else:
            loss, output = self.model(image, label)
            self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss, "acc": compute_accuracy(output, label)[0]}


@TRAINER_REGISTRY.register()
class OwnLoop(Adapters):
    """All parts of the loop are its own, and none calls what it replaces."""

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device), None

    def before_train(self):
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
        self.time_start = time.time()

    def train(self):
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_epoch(self):
        pass

    def run_epoch(self):
        self.set_model_mode("train")
        self.num_batches = len(self.train_loader_x)
        for self.batch_idx, batch in enumerate(self.train_loader_x):
            summary = self.forward_backward(batch)
            self.write_scalar("train/loss", summary["loss"].item(), self.epoch * self.num_batches + self.batch_idx)

    def after_epoch(self):
        result = self.test(split="val")
        if result > self.best_result:
            self.best_result = result
            self.save_model(self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar")
        self.save_model(self.epoch, self.output_dir)

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            save_checkpoint(
                {
                    "state_dict": self._models[name].state_dict(),
                    "epoch": epoch + 1,
                    "optimizer": None if optim is None else optim.state_dict(),
                    "scheduler": None if sched is None else sched.state_dict(),
                    "val_result": val_result,
                },
                osp.join(directory, name),
                is_best=is_best,
                model_name=model_name,
            )

    @torch.no_grad()
    def test(self, split=None):
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        for batch in tqdm(self.val_loader if split == "val" else self.test_loader):
            image, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(image), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return list(results.values())[0]


@TRAINER_REGISTRY.register()
class OwnSaving(OwnLoop):
    """The loop's epochs call its `save_model`."""

    after_epoch = TrainerX.after_epoch


@TRAINER_REGISTRY.register()
class OwnEnd(Adapters):
    """Does not test when it has trained."""

    def after_train(self):
        print("Finish training")


@TRAINER_REGISTRY.register()
class OwnLoopAndEnd(OwnLoop):
    after_train = OwnEnd.after_train


@DATASET_REGISTRY.register()
class Pets(DatasetBase):
    dataset_dir = "pets"

    def __init__(self, cfg):
        root = osp.abspath(osp.expanduser(cfg.DATASET.ROOT))
        self.split_fewshot_dir = osp.join(root, self.dataset_dir, "split_fewshot")
        mkdir_if_missing(self.split_fewshot_dir)
        train, val, test = (self.read_data(osp.join(root, split)) for split in ("train", "val", "test"))

        num_shots = cfg.DATASET.NUM_SHOTS
        if num_shots >= 1:
            preprocessed = osp.join(self.split_fewshot_dir, f"shot_{num_shots}-seed_{cfg.SEED}.pkl")
            if osp.exists(preprocessed):
                with open(preprocessed, "rb") as file:
                    data = pickle.load(file)
                train, val = data["train"], data["val"]
            else:
                train = self.generate_fewshot_dataset(train, num_shots=num_shots)
                val = self.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
                with open(preprocessed, "wb") as file:
                    pickle.dump({"train": train, "val": val}, file, protocol=pickle.HIGHEST_PROTOCOL)
        super().__init__(train_x=train, val=val, test=test)

    def read_data(self, folder):
        items = []
        for label, name in enumerate(listdir_nohidden(folder, sort=True)):
            for file in listdir_nohidden(os.path.join(folder, name), sort=True):
                items.append(Datum(impath=os.path.join(folder, name, file), label=label, classname=name))
        return items
