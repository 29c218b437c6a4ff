"""Benchmarks in small, on the CPU and in this process."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from benchmarks import cocoop, deep_prompts, measure, memory, parts, text_encoder, train_run
from benchmarks.equality import in_float64
from clip.model import build_model
from tests.benchmarks.checks import ROOT, SMALL
from tests.support.tiny_clip import golden_state_dict


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Small and in this process: importing torch in another takes seconds."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # float32 sums in one order: with more threads it changes from call to call
    torch.manual_seed(0)
    monkeypatch.setattr(measure, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    monkeypatch.setattr(parts, "import_time", lambda: 2.0)
    monkeypatch.setitem(measure.MATMUL_SIZE, "cpu", 64)
    monkeypatch.chdir(ROOT)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def small_tower(monkeypatch):
    """The golden CLIP in place of the towers of 12 layers."""

    def build_tower(*_, **__):
        return build_model(golden_state_dict("vit")).requires_grad_(False)

    for module in (text_encoder, cocoop):
        monkeypatch.setattr(module, "build_text_tower", build_tower)
    monkeypatch.setattr(deep_prompts, "build_clip", build_tower)
    monkeypatch.setattr(deep_prompts, "DEPTH", 2)  # its image tower has two blocks


@pytest.fixture
def run_words(tiny_files, tmp_path):
    """Arguments of a benchmark of whole runs, on the tiny folder."""
    data, clips = tiny_files
    flags = ["--root", data, "--dataset", "folder", "--backbone", clips["rn"], "--repeats", 1, "--test-batches", 2]
    return [str(word) for word in [*flags, "--json", tmp_path / "all" / "results.json"]]


@pytest.fixture
def run_args(run_words):
    """The arguments as `train_run` reads them: two shots of three classes in batches of 4."""
    return train_run.parse_args([*run_words, "DATASET.NUM_SHOTS", "2", *SMALL])


@pytest.fixture
def exact_sides(small_tower, monkeypatch):
    """A list that receives the sides that a benchmark of the text tower builds, each with the same in float64."""
    pairs = []

    def both(build, clip_model, *args, **options):
        sides = build(clip_model, *args, **options)
        pairs.append((sides, in_float64(sides, build, clip_model, *args, **options)))
        return sides

    for module in (text_encoder, memory, cocoop, deep_prompts):
        monkeypatch.setattr(module, "Sides", partial(both, module.Sides))
    return pairs
