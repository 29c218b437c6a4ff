"""Memory: freed blocks are used again, chunks bound what a step keeps, a full GPU names what to lower. Determinism: the
same bits on a GPU; on a CPU nothing changes; what cannot repeat itself is refused.
"""

import os
import platform
import resource

import pytest
import torch

import train
from clip import prompts
from clip.model import build_model
from clip.prompt_layout import lay_out
from clip.prompts import PromptEncoder
from engine import device, load_checkpoint
from engine.device import deterministic, keep_freed_memory, memory_advice
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import build_trainer, run_train, tiny_cfg

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB."
NAMES = [f"{name} {number}" for name in ("face", "wine bottle") for number in range(20)]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_large_block_is_used_again():
    assert keep_freed_memory()

    def faults_of_a_block():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**26, dtype=torch.uint8)  # 64 MB, 16,384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert min(faults_of_a_block() for _ in range(10)) < 1000  # once the heap has room for it


def test_another_c_library_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()


class TestChunks:
    def encode(self, chunk_rows, monkeypatch, n_contexts=2):
        """Bytes that wait for the backward pass, and runs of the tower forward and backward."""
        clip_model = build_model(golden_state_dict("vit")).double().requires_grad_(False)
        encoder = PromptEncoder(clip_model, lay_out(NAMES, 4), chunk_rows=chunk_rows)
        torch.manual_seed(0)
        ctx = torch.randn(n_contexts, 4, clip_model.transformer.width, dtype=torch.float64, requires_grad=True)
        runs, kept, run_tower = [], {}, prompts.run_tower
        monkeypatch.setattr(
            prompts, "run_tower", lambda *args, **options: (runs.append(1), run_tower(*args, **options))[1]
        )

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = encoder(ctx)
        n_forward = len(runs)
        features.sum().backward()
        return sum(kept.values()), n_forward, len(runs) - n_forward

    def test_all_but_the_last_are_computed_again_and_they_bound_what_waits(self, monkeypatch):
        kept, n_forward, n_again = zip(*(self.encode(n, monkeypatch) for n in (0, 160, 80, 40)))
        assert n_forward[0] == 1 and min(n_forward[2:]) > 2
        assert n_again == tuple(n - 1 for n in n_forward)
        assert kept[3] < kept[1] < kept[0] and kept[3] < kept[0] / 3


class TestFullGpu:
    """The error is raised by a stand-in: torch raises it as this class where a GPU is full."""

    @pytest.fixture
    def fail(self, tiny_files, tmp_path, monkeypatch, capsys):
        """Calls train.py with a method that fills the GPU; returns what it prints to standard error."""

        def full(*_, **__):
            raise torch.cuda.OutOfMemoryError(FULL)

        def call(trainer, method, *pairs, extra=()):
            owner = train.TRAINER_REGISTRY.get(trainer)
            monkeypatch.setattr(owner, method, full)
            flags = {"root": tiny_files[0], "output_dir": tmp_path / "run", "seed": 1, "trainer": trainer}
            words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
            config = {"MODEL.BACKBONE.NAME": tiny_files[1]["vit"], "DATASET.NAME": "Folder", "INPUT.SIZE": "(32, 32)"}
            config |= {"DATALOADER.NUM_WORKERS": 0, "USE_CUDA": False, "VERBOSE": False} | dict(pairs)
            assert train.main([*words, *extra, *(str(word) for pair in config.items() for word in pair)]) == 1
            return capsys.readouterr().err

        return call

    def test_training_names_the_rows_and_the_batches(self, fail):
        pairs = [("TRAINER.COOP.CHUNK_ROWS", 10), ("DATALOADER.TRAIN_X.BATCH_SIZE", 4)]
        assert fail("CoOp", "forward_backward", *pairs, ("TRAINER.COOP.N_CTX", 2)) == (
            "Error: The GPU's memory is full (CUDA out of memory). To need less, add "
            "TRAINER.COOP.CHUNK_ROWS 5 or DATALOADER.TEST.BATCH_SIZE 16 or "
            "DATALOADER.TRAIN_X.BATCH_SIZE 2.\n"
        )

    def test_training_through_the_image_tower_names_its_activations(self, fail):
        pairs = [("TRAINER.VPT.PROMPT_DEPTH_VISION", 2), ("DATALOADER.TRAIN_X.BATCH_SIZE", 4)]
        found = fail("VPT", "forward_backward", *pairs)
        assert "add TRAINER.VPT.CHECKPOINT_ACTIVATIONS True or DATALOADER.TEST.BATCH_SIZE" in found
        found = fail("VPT", "forward_backward", *pairs, ("TRAINER.VPT.CHECKPOINT_ACTIVATIONS", True))
        assert "To need less, add DATALOADER.TEST.BATCH_SIZE 16 or DATALOADER.TRAIN_X.BATCH_SIZE 2." in found

    @pytest.mark.parametrize("chunk_rows", [0, 10**6])
    def test_more_rows_than_there_are_count_as_all(self, fail, chunk_rows):
        pairs = [("TRAINER.COCOOP.CHUNK_ROWS", chunk_rows), ("TRAINER.COCOOP.N_CTX", 2)]
        # 2 context vectors, and "face . [EOT]", "leopard . [EOT]", "wine bottle . [EOT]": 2 + 3 + 3 + 4 rows
        assert "add TRAINER.COCOOP.CHUNK_ROWS 6 or" in fail("CoCoOp", "forward_backward", *pairs)

    def test_a_test_names_its_batches_alone(self, fail):
        found = fail("ZeroshotCLIP", "test", extra=["--eval-only"])
        assert "add DATALOADER.TEST.BATCH_SIZE 16.\n" in found and "TRAIN_X" not in found

    def test_where_nothing_can_be_lowered(self):
        with pytest.raises(MemoryError, match=r"Use a larger GPU, or the CPU\.$"), memory_advice(dict):
            raise torch.cuda.OutOfMemoryError(FULL)

    def test_other_errors_pass(self):
        with pytest.raises(RuntimeError, match="^shapes differ$"), memory_advice(dict):
            raise RuntimeError("shapes differ")


def settings():
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


def learned(folder):
    return load_checkpoint(folder / "prompt_learner" / "model.pth.tar-2")["state_dict"]["ctx"]


def test_settings_are_made_and_taken_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings()
    with deterministic(False):
        assert settings() == before
    with deterministic(True):
        assert settings() == (True, True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")  # what torch takes
    assert settings() == before == (False, False, True)


def test_an_operation_without_a_repeatable_form_is_named_and_other_errors_stay(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    message = (
        r"^RUN\.DETERMINISTIC is True, but torch's put_ has no deterministic form on this "
        r"device\. Leave --deterministic out, or set USE_CUDA False\.$"
    )
    before = settings()
    with pytest.raises(ValueError, match=message), deterministic(True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    assert settings() == before
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"), deterministic(True):
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp"])
def test_on_a_cpu_it_changes_no_bit(tiny_files, tmp_path, monkeypatch, trainer):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    for name, wanted in (("without", False), ("with", True)):
        pairs = ("TRAINER.NAME", trainer, "TRAINER.COCOOP.PREC", "fp32", "TEST.NO_TEST", True)
        cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / name, *pairs, "RUN.DETERMINISTIC", wanted)
        with deterministic(wanted):
            build_trainer(cfg).train()
    assert torch.equal(learned(tmp_path / "with"), learned(tmp_path / "without"))


@pytest.mark.parametrize(
    "flags, expected",
    [("fpu avx512f avx512_bf16 fsrm", True), ("fpu amx_bf16 amx_tile", True), ("fpu avx2 avx512f", False)],
)
def test_a_processor_that_multiplies_bfloat16_is_known_by_its_flags(flags, expected, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "CPUINFO", cpuinfo)
    assert not device.multiplies_bfloat16()  # where there is no such file
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\n")
    assert device.multiplies_bfloat16() == expected


def test_the_log_says_what_it_costs(tiny_files, tmp_path):
    data, clips = tiny_files
    for name, wanted in (("with", True), ("without", False)):
        pairs = ("TRAINER.NAME", "ZeroshotCLIP", "RUN.EVAL_ONLY", True, "RUN.DETERMINISTIC", wanted)
        run_train(tiny_cfg(data, clips["vit"], tmp_path / name, *pairs))
        line = "Deterministic: every operation repeats its bits, which costs time and memory on a GPU\n"
        assert (line in (tmp_path / name / "log.txt").read_text()) == wanted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp"])
@pytest.mark.parametrize("prec", ["fp32", "fp16", "amp"])
def test_two_runs_on_a_gpu_are_the_same_bits(tiny_files, tmp_path, trainer, prec):
    pairs = ("USE_CUDA", True, "RUN.DETERMINISTIC", True, "TRAINER.NAME", trainer, "TEST.NO_TEST", True)
    for name in ("one", "other"):
        precisions = ("TRAINER.COOP.PREC", prec, "TRAINER.COCOOP.PREC", prec)
        cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / name, *pairs, *precisions)
        with deterministic(True):
            build_trainer(cfg).train()
    assert torch.equal(learned(tmp_path / "one"), learned(tmp_path / "other"))
