"""Several ranks compute what one process computes, write once, and end together when one of them dies."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import engine.trainer
import train
from engine import distributed
from engine.distributed import (
    any_rank,
    first_on_machine,
    gather_rows,
    mean_over_ranks,
    n_ranks,
    on_first_rank,
    process_group,
    share,
)
from engine.features import reader as feature_reader
from engine.process_cache import sharing
from engine.run.folder import read_results
from engine.run.results import MEASURES
from engine.trainer import TrainerX
from tests.support.ranks import run_ranks
from tests.support.tiny_run import build_trainer, tiny_cfg
from tests.support.tolerance import assert_near
from tests.trainers.in_towers.by_hand import pairs_of
from trainers.context import ShardedPromptEncoder

ROOT = Path(__file__).resolve().parents[2]
SHARDED = ("TRAINER.COOP.SHARD_CLASSES", True)

# Training: 12 images of 3 classes in batches of 4; testing: 9 in batches of 4.
RUNS = {
    "coop": (),
    "one image": ("DATALOADER.TRAIN_X.BATCH_SIZE", 1, "OPTIM.MAX_EPOCH", 1),  # one rank has work
    "one small batch": ("DATALOADER.TRAIN_X.BATCH_SIZE", 32, "OPTIM.NAME", "adamw"),
    "batches of classes": ("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.N_INS", 2),
    "views": ("INPUT.VIEWS", 2, "OPTIM.MAX_EPOCH", 3, "TEST.SPLIT", "val"),
    "best model": ("TEST.FINAL_MODEL", "best_val", "TEST.PER_CLASS_RESULT", True, "TEST.COMPUTE_CMAT", True),
    "classes": SHARDED,
    "classes, contexts": (*SHARDED, "TRAINER.COOP.CSC", True, "DATALOADER.TRAIN_X.BATCH_SIZE", 2),
    "classes, middle": (*SHARDED, "TRAINER.COOP.CLASS_TOKEN_POSITION", "middle", "TRAINER.COOP.CHUNK_ROWS", 9),
    "classes, front": (*SHARDED, "TRAINER.COOP.CLASS_TOKEN_POSITION", "front", "TRAINER.COOP.CSC", True),
    "classes, a gradient rule": ("TRAINER.NAME", "ProGrad", "TRAINER.PROGRAD.SHARD_CLASSES", True),
    "classes, their own vectors": (
        "TRAINER.NAME",
        "TCP",
        "TRAINER.TCP.SHARD_CLASSES",
        True,
        "TRAINER.TCP.PREC",
        "fp32",
    ),
    **{f"classes, {name}": pairs_of(name, "SHARD_CLASSES", True) for name in ("IVLP", "MaPLe", "PromptSRC")},
    "features": ("TRAINER.NAME", "TipAdapterF", "OPTIM.NAME", "adamw", "TEST.FINAL_MODEL", "best_val"),
    "features, after each epoch": (
        "TRAINER.NAME",
        "CLAP",
        "TRAINER.CLAP.CONSTRAINT",
        "adaptative",
        "OPTIM.MAX_EPOCH",
        3,
    ),
}


def do_run(cfg):
    """Trains; returns what should not depend on the number of ranks."""
    trainer = build_trainer(cfg)
    losses, logits = [], []
    process = trainer.evaluator.process

    def record(values, *share):
        losses.append({name: float(value) for name, value in mean_over_ranks(values, *share).items()})
        return losses[-1]

    def record_logits(*batch):
        logits.append(batch[0].clone())
        process(*batch)

    trainer.evaluator.process = record_logits
    with patch.object(engine.trainer, "mean_over_ranks", record):
        trainer.train()
    learned = {name: model.state_dict() for name, model in trainer.models.items()}
    is_sharded = isinstance(getattr(trainer.model, "encode_prompts", None), ShardedPromptEncoder)
    given = {"losses": losses, "logits": logits, "learned": learned, "results": trainer.results}
    return {**given, "is_sharded": is_sharded}


def do_all(tiny_files, folder, rank=0):
    """Does RUNS, and what else several ranks do."""
    data, clips = tiny_files
    feature_reader.N_BATCHES = 1  # so that there are several pieces; this process ends with this function
    keys = ("FEATURES.DIR", "", "TRAINER.PROGRAD.PREC", "fp32", "TRAINER.PROGRAD.N_CTX", 2)
    cfg_of = partial(tiny_cfg, data, clips["vit"])
    with process_group(use_cuda=False), sharing():
        done = {name: do_run(cfg_of(folder / name, *keys, *pairs)) for name, pairs in RUNS.items()}
        if n_ranks() > 1:
            done["whole run"] = do_whole_run(cfg_of(folder / "whole", *keys, "SEED", -1, "DATASET.NUM_SHOTS", 2), rank)
            done["functions"] = do_functions(rank, folder / "loaded")
            done["own step"] = do_own_step(cfg_of(folder / "own step", *keys))
            done["not finite"] = do_not_finite(cfg_of(folder / "not finite", *keys), rank)
    return done


def do_whole_run(cfg, rank):
    """Calls train.py's `run` with a fresh seed, then again; the image features are kept on disk."""
    cfg.defrost()
    cfg.OUTPUT_DIR += f"/machine{rank}"  # another machine has none of the first one's files
    cfg.FEATURES.DIR = cfg.OUTPUT_DIR + "-features"
    with recorded_items() as items:
        train.run(cfg)
        train.run(cfg)
    return {"seed": cfg.SEED, "items": items, "folder": Path(cfg.OUTPUT_DIR)}


@contextmanager
def recorded_items():
    """Collects the training items of each trainer that is built."""
    build, items = TrainerX.build_data_loader, []

    def record(self):
        build(self)
        items.append([item.impath for item in self.dm.dataset.train_x])

    TrainerX.build_data_loader = record
    try:
        yield items
    finally:
        TrainerX.build_data_loader = build


def do_functions(rank, file):
    """What the functions give, the inputs being different on each rank."""
    rows = torch.arange(7.0, dtype=torch.float64)[:, None].requires_grad_()
    whole = gather_rows(rows[share(7)], 7)
    (whole.square() * (rank + 1)).sum().backward()
    with first_on_machine():
        found = file.exists()
        file.touch()
    with pytest.raises(ValueError, match="invalid literal") as said:
        on_first_rank(lambda: int("x") if rank == 0 else None)
    kinds = (torch.float16, torch.bfloat16, torch.int64)
    return {
        "whole": whole.detach(),
        "gradient": rows.grad[share(7)],
        "flags": any_rank([rank == 0, False, rank == 1]),
        "of the first": on_first_rank(lambda: rank),
        "said": str(said.value),
        "kinds": [gather_rows(torch.full((1, 2), rank, dtype=kind), n_ranks()).tolist() for kind in kinds],
        "found": found,
    }


def do_own_step(cfg):
    """What a method hears that steps its optimiser without the other ranks."""
    trainer = build_trainer(cfg)
    with pytest.raises(ValueError) as said:
        trainer.optims["prompt_learner"].step()
    return str(said.value)


def do_not_finite(cfg, rank):
    """What each rank hears of a loss that is infinite on one of them."""
    trainer = build_trainer(cfg)
    loss = trainer.model.prompt_learner.ctx.sum() * (torch.inf if rank else 1.0)
    with pytest.raises(FloatingPointError) as said:
        trainer.model_backward_and_update(loss)
    return str(said.value)


@pytest.fixture(scope="module")
def alone(tiny_files, tmp_path_factory):
    """What one process gives, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    [(_, given)] = run_ranks(1, partial(do_all, tiny_files, folder), folder / "said")
    return given, folder


@pytest.fixture(scope="module", params=[2, 3])
def together(request, tiny_files, tmp_path_factory):
    """What each of the ranks gives, and their folder."""
    folder = tmp_path_factory.mktemp("together")
    outcomes = run_ranks(request.param, partial(do_all, tiny_files, folder), folder / "said")
    assert [code for code, _ in outcomes] == [0] * request.param, (folder / "said/rank0.err").read_text()
    return [given for _, given in outcomes], folder


class TestWhatIsComputed:
    @pytest.mark.parametrize("name", RUNS)
    def test_losses_and_learned_vectors_are_those_of_one_process(self, alone, together, name):
        expected = alone[0][name]
        for given in together[0]:
            assert_near(by_name(given[name]["losses"]), by_name(expected["losses"]))
            assert_near(given[name]["learned"], expected["learned"])

    @pytest.mark.parametrize("name", RUNS)
    def test_evaluation_sees_every_image_once_and_in_order(self, alone, together, name):
        expected = alone[0][name]
        for given in together[0]:
            assert_near(given[name]["logits"], expected["logits"])
            assert given[name]["results"] == pytest.approx(expected["results"], abs=1e-4)
        n_items = expected["results"]["total"]
        assert [len(batch) for batch in expected["logits"]][-ceil(n_items / 4) :] == {9: [4, 4, 1], 6: [4, 2]}[n_items]

    def test_classes_are_shared_out_where_that_is_asked_for(self, together):
        for given in together[0]:
            assert [given[name]["is_sharded"] for name in RUNS] == [name.startswith("classes") for name in RUNS]

    def test_all_ranks_hold_the_same_vectors(self, together):
        first, *others = together[0]
        for given in others:
            for name in RUNS:
                assert_near(given[name]["learned"], first[name]["learned"], 0.0)

    def test_confusion_matrix(self, alone, together):
        one, several = (torch.load(folder / "best model/cmat.pt") for folder in (alone[1], together[1]))
        assert torch.equal(several, one)

    def test_a_fresh_seed_and_the_few_shot_draw_are_the_same_everywhere(self, together):
        runs = [given["whole run"] for given in together[0]]
        assert len({run["seed"] for run in runs}) == 1 and runs[0]["seed"] >= 0
        assert all(run["items"] == runs[0]["items"] for run in runs)
        assert [len(items) for items in runs[0]["items"]] == [6]  # built once: the second call was done already


class TestWhoWrites:
    def test_the_first_rank_alone(self, together):
        given, _ = together
        first, *others = [run["whole run"]["folder"] for run in given]
        files = {
            ".lock",
            "log.txt",
            "config.yaml",
            "classes.json",
            "results.json",
            "predictions.csv",
            "tensorboard",
            "prompt_learner",
        }
        assert {path.name for path in first.iterdir()} == files
        assert not any(folder.exists() for folder in others)
        assert (first / "log.txt").read_text().count("* accuracy: ") == 1
        assert len(list((first / "tensorboard").iterdir())) == 1

    def test_the_first_of_a_machine_keeps_the_features(self, together):
        folders = [Path(f"{run['whole run']['folder']}-features") for run in together[0]]
        n_pieces = sum(ceil(n / (4 * len(folders))) for n in (9, 6))  # test and selection: a batch of each rank in one
        assert [len(list(folder.glob("*/*.npz"))) for folder in folders] == [n_pieces] + [0] * (len(folders) - 1)

    def test_the_others_are_silent(self, together):
        given, folder = together
        said = (folder / "said/rank0.out").read_text()
        assert "Parameters to be trained" in said and said.count("Done already") == 1
        assert all(not (folder / f"said/rank{r}.out").read_text() for r in range(1, len(given)))

    def test_the_log_is_that_of_one_process(self, alone, together):
        one, several = (read_scalars(folder / "best model/tensorboard") for folder in (alone[1], together[1]))
        assert_near(several, one)


class TestFunctions:
    def test_gathered_rows_and_their_gradients(self, together):
        n = len(together[0])
        factor = 2 * sum(range(1, n + 1))  # of d/dx sum_r (r + 1) x^2
        for rank, given in enumerate(given["functions"] for given in together[0]):
            x = torch.arange(7.0, dtype=torch.float64)[:, None]
            own = slice(7 * rank // n, 7 * (rank + 1) // n)
            assert torch.equal(given["whole"], x)
            assert torch.equal(given["gradient"], factor * x[own])
            assert given["kinds"] == [[[r, r] for r in range(n)]] * 3

    def test_what_the_ranks_tell_each_other(self, together):
        for rank, given in enumerate(given["functions"] for given in together[0]):
            assert given["flags"] == [True, False, True]
            assert given["of the first"] == 0
            assert "invalid literal" in given["said"]
            assert given["found"] is (rank > 0)

    def test_shares_are_all_items_once(self, monkeypatch):
        for n_processes in (1, 2, 3, 8):
            monkeypatch.setattr(distributed, "n_ranks", lambda n=n_processes: n)
            for n_items in range(12):
                shares = [range(n_items)[share(n_items, of_rank=r)] for r in range(n_processes)]
                assert [i for part in shares for i in part] == list(range(n_items))
                assert max(map(len, shares)) - min(map(len, shares)) <= 1


class TestErrors:
    def test_a_step_without_the_other_ranks(self, together):
        for given in together[0]:
            message = f"CoOp steps its optimiser by itself on {len(together[0])} ranks. It has to"
            assert given["own step"].startswith(message)

    def test_a_loss_that_is_infinite_on_one_rank_stops_all(self, together):
        assert all(given["not finite"].startswith("The loss is ") for given in together[0])

    @pytest.mark.parametrize(
        ("pairs", "n", "message"),
        [
            ((), 10, "The number of ranks is 10, but there are 9 test items of Folder. Lower"),
            (("TEST.NO_TEST", True), 13, "The number of ranks is 13, but there are 12 training items"),
        ],
    )
    def test_more_ranks_than_items(self, tiny_files, tmp_path, monkeypatch, pairs, n, message):
        monkeypatch.setattr("engine.data.manager.n_ranks", lambda: n)
        with pytest.raises(ValueError, match=message):
            build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *pairs))

    def test_more_ranks_than_classes(self, tiny_files, tmp_path, monkeypatch):
        monkeypatch.setattr("trainers.context.n_ranks", lambda: 4)
        with pytest.raises(ValueError, match="SHARD_CLASSES is True, but 3 classes cannot be shared out among 4 ranks"):
            build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *SHARDED))

    def test_more_ranks_than_gpus(self, monkeypatch):
        sizes = {"RANK": 3, "LOCAL_RANK": 3, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4}
        for name, value in {**sizes, "MASTER_ADDR": "-", "MASTER_PORT": 0}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(ValueError, match="--nproc_per_node is 4, but this machine has 2 GPUs"):
            process_group(use_cuda=True).__enter__()


class TestARankThatDies:
    """Rank 1 is killed in the second epoch; the same command, started by torchrun, goes on."""

    keys = ("DATALOADER.NUM_WORKERS", "0", "TRAIN.CHECKPOINT_FREQ", "1")

    def test_the_others_end_with_a_message_and_the_run_can_be_resumed(self, argv, tmp_path):
        killed, message = self.kill_one(argv("several", *self.keys), tmp_path / "said")
        assert killed == [1, -signal.SIGKILL]
        assert message.startswith("Error: Rank 0 has lost another of the 2 ranks (")
        assert message.endswith("the same command goes on from the last checkpoint.\n")
        assert not (tmp_path / "several/results.json").exists()
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "train.py"]
        options = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "timeout": 120}
        done = subprocess.run([*command, *argv("several", *self.keys)], **options, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Resume after epoch 1 from" in done.stdout
        assert train.main(argv("one", *self.keys)) == 0
        one, several = (read_results(tmp_path / name) for name in ("one", "several"))
        # Two ranks have trained with other roundings than one.
        near = {name: pytest.approx(one[name], abs=1e-4) for name in MEASURES}
        of_the_call = {name: several[name] for name in ("provenance", "cost")}
        assert several == {**one, **near, **of_the_call}
        ranks = [results["provenance"]["ranks"] for results in (one, several)]
        assert ranks == [1, 2]

    def kill_one(self, argv, folder):
        """Returns the exit codes, and what the first rank says on standard error."""

        def work(rank):
            before_epoch = TrainerX.before_epoch

            def die(self):
                before_epoch(self)
                if rank == 1 and self.epoch == 1:
                    os.kill(os.getpid(), signal.SIGKILL)

            TrainerX.before_epoch = die  # in this process, which ends
            sys.exit(train.main(argv))

        return [code for code, _ in run_ranks(2, work, folder)], (folder / "rank0.err").read_text()


def by_name(losses):
    """[{name: value}, ...] -> {name: [value, ...]}"""
    return {name: [values[name] for values in losses] for name in (losses[0] if losses else ())}


def read_scalars(folder):
    """Every scalar of a TensorBoard folder: tag -> values."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [event.value for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
