"""The modules below Dassl's packages: their names do what Dassl's do, and what is not here says so."""

import json
import math
from pathlib import Path

import pytest
import torch

import train
from dassl.data import data_manager
from dassl.data.datasets.base_dataset import DatasetBase
from dassl.data.samplers import build_sampler
from dassl.data.transforms.transforms import build_transform
from dassl.engine.trainer import TrainerX
from dassl.evaluation.evaluator import Classification
from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler
from dassl.optim.radam import RAdam
from dassl.utils.tools import check_availability
from engine import TRAINER_REGISTRY, Datum, build_optimizer, get_cfg_default
from tests.resume.stopping import assert_same, before_step, ended, terminate
from tests.resume.stopping import train as train_until_stopped
from tests.support.tiny_run import build_trainer, tiny_cfg

LR_CASES = json.loads((Path(__file__).parents[1] / "golden" / "lr.json").read_text())
PLUGIN = """
from dassl.config import get_cfg_default
from dassl.data.data_manager import DataManager, DatasetWrapper, build_data_loader, build_transform
from dassl.data.datasets.base_dataset import DatasetBase, Datum
from dassl.data.datasets.build import DATASET_REGISTRY, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms.transforms import INTERPOLATION_MODES, build_transform
from dassl.engine.build import TRAINER_REGISTRY, build_trainer
from dassl.engine.trainer import (
    AverageMeter, DataManager, MetricMeter, SimpleTrainer, SummaryWriter, TrainerBase, TrainerX, build_evaluator,
    build_lr_scheduler, build_optimizer, count_num_param, load_checkpoint, load_pretrained_weights, mkdir_if_missing,
    resume_from_checkpoint, save_checkpoint, tolist_if_not,
)
from dassl.evaluation.build import EVALUATOR_REGISTRY, build_evaluator
from dassl.evaluation.evaluator import Classification, EvaluatorBase
from dassl.metrics import compute_accuracy
from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler, build_lr_scheduler
from dassl.optim.optimizer import build_optimizer
from dassl.optim.radam import RAdam
from dassl.utils import check_availability, resume_from_checkpoint
from dassl.utils.logger import setup_logger
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.registry import Registry
from dassl.utils.tools import check_availability, listdir_nohidden, mkdir_if_missing, read_image, set_random_seed
from dassl.utils.torchtools import count_num_param, load_checkpoint, load_pretrained_weights, save_checkpoint
from trainers.zsclip import ZeroshotCLIP


@TRAINER_REGISTRY.register()
class Deep(ZeroshotCLIP):
    def build_model(self):
        check_availability("a", ["a", "b"])
        writer = SummaryWriter(log_dir=self.cfg.OUTPUT_DIR)
        writer.add_scalar("x", 1.0, 0)
        writer.close()
        super().build_model()
"""


class TestImports:
    def run(self, text, tiny_files, tmp_path, capsys):
        data, clips = tiny_files
        (tmp_path / "deep.py").write_text(text)
        (tmp_path / "data.yaml").write_text("DATASET: {NAME: Folder}\n")
        flags = ["--trainer=Deep", f"--plugin={tmp_path}/deep.py", f"--root={data}", f"--backbone={clips['vit']}"]
        flags += [f"--dataset-config-file={tmp_path}/data.yaml", f"--output-dir={tmp_path}/run", "--eval-only"]
        pairs = "USE_CUDA False INPUT.SIZE (32,32) DATALOADER.NUM_WORKERS 0 TRAINER.ZSCLIP.PREC fp32"
        return train.main([*flags, "--seed=1", *pairs.split()]), capsys.readouterr().err

    def test_a_file_with_all_of_them_runs(self, tiny_files, tmp_path, capsys):
        code, err = self.run(PLUGIN, tiny_files, tmp_path, capsys)
        assert code == 0, err
        assert list((tmp_path / "run").glob("events.out.tfevents.*"))

    def test_an_unknown_name(self):
        with pytest.raises(ValueError, match=r"'adan' is none of: adam, sgd\. Did you mean adam\?"):
            check_availability("adan", ["adam", "sgd"])


class TestOptim:
    @pytest.mark.parametrize("decay", [0.0, 0.1])
    def test_radam_is_the_papers_with_decoupled_decay(self, decay):
        """Algorithm 2 of the paper; until the variance is known, a step of the first moment alone."""
        start, gradients = torch.tensor([1.0, -2.0]), torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
        cfg = get_cfg_default().OPTIM
        cfg.NAME, cfg.LR, cfg.WEIGHT_DECAY, cfg.ADAM_BETA2 = "radam", 0.1, decay, 0.9
        found = [torch.nn.Parameter(start.clone()) for _ in range(2)]
        optims = [RAdam([found[0]], lr=0.1, betas=(0.9, 0.9), weight_decay=decay), build_optimizer([found[1]], cfg)]
        w, m, v, rho_inf = start.double(), 0, 0, 2 / (1 - 0.9) - 1
        for t, gradient in enumerate(gradients, start=1):
            for parameter, optim in zip(found, optims):
                parameter.grad = gradient.clone()
                optim.step()
            m, v = 0.9 * m + 0.1 * gradient.double(), 0.9 * v + 0.1 * gradient.double() ** 2
            w, m_hat = w - 0.1 * decay * w, m / (1 - 0.9**t)
            rho = rho_inf - 2 * t * 0.9**t / (1 - 0.9**t)
            if rho > 5:
                r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
                w = w - 0.1 * r * m_hat * math.sqrt(1 - 0.9**t) / (v.sqrt() + 1e-8)
            else:
                w = w - 0.1 * m_hat
        for parameter in found:
            assert parameter.tolist() == pytest.approx(w.tolist(), rel=1e-5)

    @pytest.mark.parametrize(
        "case", [case for case in LR_CASES if case["warmup_epoch"] > 0], ids=lambda case: case["warmup_type"]
    )
    def test_warm_ups_are_the_originals(self, case):
        optim = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=case["lr"])
        successor = torch.optim.lr_scheduler.CosineAnnealingLR(optim, float(case["max_epoch"]))
        if not case["recount"]:
            successor.last_epoch = case["warmup_epoch"]
        kind = {"constant": ConstantWarmupScheduler, "linear": LinearWarmupScheduler}[case["warmup_type"]]
        sched, rates = kind(optim, successor, case["warmup_epoch"], 1e-5, last_epoch=-1, verbose=False), []
        for _ in range(case["max_epoch"]):
            rates.append(optim.param_groups[0]["lr"])
            optim.step()
            sched.step()
        assert rates == pytest.approx(case["lrs"], rel=1e-12)


class TestEvaluator:
    def test_one_that_derives_from_its_own_and_reads_what_it_keeps(self):
        class Derived(Classification):
            def process(self, mo, gt, note):
                super().process(mo, gt)
                self.note = note

            def evaluate(self):
                per_class = {self._lab2cname[label]: sum(hits) for label, hits in self._per_class_res.items()}
                return {"accuracy": 100 * self._correct / self._total, "per_class": per_class, "true": self._y_true}

        cfg = get_cfg_default()
        cfg.TEST.PER_CLASS_RESULT = True
        evaluator = Derived(cfg, lab2cname={0: "x", 1: "y"})
        for _ in range(2):
            evaluator.reset()
            evaluator.process(
                torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1, 1, 0]), ""
            )
        assert evaluator.evaluate() == {"accuracy": 75.0, "per_class": {"x": 2, "y": 1}, "true": [0, 1, 1, 0]}

    def test_one_that_counts_itself_is_measured_by_the_engines(self):
        class Derived(Classification):
            def process(self, mo, gt):
                self._y_true.extend(gt.tolist())
                self._y_pred.extend(mo.argmax(dim=1).tolist())

        evaluator = Derived(get_cfg_default(), {0: "x", 1: "y"})
        evaluator.process(torch.eye(2), torch.tensor([0, 0]))
        assert evaluator.evaluate()["accuracy"] == 50.0


class Own(TrainerX):
    """A weight for each class and colour, on a loader of its own, as files have it that change the augmentation."""

    def build_data_loader(self):
        super().build_data_loader()
        cfg, options = self.cfg, self.cfg.DATALOADER.TRAIN_X
        self.train_loader_x = data_manager.build_data_loader(
            cfg,
            sampler_type=options.SAMPLER,
            data_source=self.dm.dataset.train_x,
            batch_size=options.BATCH_SIZE,
            tfm=build_transform(cfg, is_train=True),
            is_train=True,
        )
        if self.in_manager:
            self.dm.train_loader_x = self.train_loader_x

    def build_model(self):
        self.model = torch.nn.Linear(3, self.num_classes)
        torch.nn.init.ones_(self.model.weight)
        self.register_model("own", self.model, torch.optim.SGD(self.model.parameters(), lr=0.1))
        self.seen = []

    def model_inference(self, image):
        return self.model(image.mean(dim=(2, 3)))

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        self.seen.append((batch["index"].tolist(), image.sum().item()))
        loss = torch.nn.functional.cross_entropy(self.model_inference(image), label)
        self.model_backward_and_update(loss)
        return {"loss": loss}


@pytest.fixture
def make(tiny_files, tmp_path, register):
    """Builds `Own`; in_manager: its loader is the data manager's, too."""

    def build(*, in_manager=False, folder="run"):
        torch.manual_seed(0)
        register(TRAINER_REGISTRY, type("Own", (Own,), {"in_manager": in_manager}))
        pairs = ("TRAINER.NAME", "Own", "OPTIM.MAX_EPOCH", 3)
        return build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / folder, *pairs))

    return build


class TestData:
    @pytest.mark.parametrize("in_manager", [False, True])
    def test_every_epoch_of_a_loader_of_its_own_is_drawn_anew(self, make, in_manager):
        trainer = make(in_manager=in_manager)
        trainer.train()
        epochs = [trainer.seen[3 * e : 3 * e + 3] for e in range(3)]
        assert all(sorted(i for indices, _ in epoch for i in indices) == list(range(12)) for epoch in epochs)
        assert len({str([indices for indices, _ in epoch]) for epoch in epochs}) == 3
        assert len({f"{sum(pixels for _, pixels in epoch):.3f}" for epoch in epochs}) == 3  # other crops

    @pytest.mark.parametrize("in_manager", [False, True])
    @pytest.mark.parametrize("n_steps", [2, 4])
    def test_stopped_in_the_midst_it_goes_on_to_the_same_end(self, make, in_manager, n_steps):
        whole = make(in_manager=in_manager, folder="whole")
        assert train_until_stopped(whole)
        expected = ended(whole)
        stopped = make(in_manager=in_manager)
        before_step(stopped, n_steps, terminate)
        assert not train_until_stopped(stopped)
        again = make(in_manager=in_manager)
        assert train_until_stopped(again)
        assert_same(ended(again), expected)

    def test_samplers(self):
        items = [Datum(str(i), i % 3) for i in range(12)]
        assert list(build_sampler("SequentialSampler", data_source=items)) == list(range(12))
        shuffled = build_sampler("RandomSampler", cfg=None, data_source=items, batch_size=4, n_domain=0, n_ins=2)
        assert len(shuffled) == 12 and list(shuffled) != list(shuffled)
        by_class = list(build_sampler("RandomClassSampler", data_source=items, batch_size=4, n_ins=2))
        assert all(items[i].label == items[j].label for i, j in zip(by_class[::2], by_class[1::2]))
        with pytest.raises(ValueError, match="The sampler is 'RandomDomainSampler', expected one of"):
            build_sampler("RandomDomainSampler", data_source=items)

    def test_classes_of_items(self):
        items = [Datum("a", 1, classname="y"), Datum("b", 0, classname="x"), Datum("c", 1, classname="y")]
        base = DatasetBase(train_x=items, test=items)
        assert base.get_num_classes(items) == 2
        assert base.get_lab2cname(items) == ({0: "x", 1: "y"}, ["x", "y"])


class TestProGrad:
    """`prograd_backward_and_update`, against its formula, tensor by tensor."""

    @pytest.mark.parametrize("lambda_", [1, 0.8])
    def test_a_step(self, make, lambda_):
        trainer = make()
        x, before = torch.tensor([[1.0, -2.0, 0.5]]), [p.detach().clone() for p in trainer.model.parameters()]
        out = trainer.model(x)
        loss_a, loss_b = out[0, 0] + out[0, 1], (out[0, 1] - out[0, 0]) * 2 - out[0, 2] - 3 * out[0, 0]
        trainer.prograd_backward_and_update(loss_a, loss_b, lambda_)
        rows = torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[-5.0], [2.0], [-1.0]])
        for parameter, start, inputs in zip(trainer.model.parameters(), before, (x, torch.ones(1, 1))):
            a, b = ((row * inputs).flatten() for row in rows)
            assert a @ b < 0
            step = a - lambda_ * (a @ b) / (b @ b) * b
            torch.testing.assert_close((start - parameter).flatten(), 0.1 * step)
            assert (abs(step @ b) < 1e-5) == (lambda_ == 1)

    def test_gradients_that_agree_are_a_step_on_the_first_loss(self, make):
        trainer = make()
        before = trainer.model.weight.detach().clone()
        loss = trainer.model(torch.ones(1, 3))[0, 0]
        trainer.prograd_backward_and_update(loss, loss * 3, names="own")
        expected = torch.tensor([[0.1], [0.0], [0.0]]).expand(3, 3)
        torch.testing.assert_close(before - trainer.model.weight.detach(), expected)

    def test_a_loss_that_is_no_number(self, make):
        trainer = make()
        loss = trainer.model(torch.ones(1, 3))[0, 0]
        with pytest.raises(FloatingPointError, match="The loss is nan"):
            trainer.prograd_backward_and_update(loss, loss * math.nan)
