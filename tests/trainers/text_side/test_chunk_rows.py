"""CHUNK_ROWS -1: as many rows of the text tower at once as a GPU has room for, whose free memory is a stand-in here."""

import logging

import pytest
import torch

from clip.prompt_layout import lay_out
from tests.clip.test_plain_prompts import towers
from tests.support.tiny_run import build_trainer, tiny_cfg
from trainers import context


@pytest.fixture
def cfg(tiny_files, tmp_path):
    return lambda *pairs: tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", *pairs)


def chosen(cfg, *pairs):
    return build_trainer(cfg("TRAINER.COOP.CHUNK_ROWS", -1, *pairs)).model.encode_prompts


def test_rows_follow_the_free_memory_of_a_gpu(cfg, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    found = {}
    for free in (10**5, 10**9, 2 * 10**9):
        monkeypatch.setattr(context, "free_memory", lambda device, free=free: free)
        found[free] = chosen(cfg)
    assert found[2 * 10**9].chunk_rows == pytest.approx(2 * found[10**9].chunk_rows, rel=0.01)
    assert len(found[10**9].packs) == 1 and len(found[10**5].packs) == 3  # a class each
    assert f"Rows of the text tower at once: {found[10**9].chunk_rows:,}, of 1.0 GB that are free" in caplog.text


def test_bits_that_have_to_repeat_do_not_depend_on_free_memory(cfg, monkeypatch):
    assert chosen(cfg).chunk_rows == 16384  # of a CPU
    monkeypatch.setattr(context, "free_memory", lambda device: 10**5)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert chosen(cfg).chunk_rows == 16384


def test_a_full_gpu_is_told_of_fewer_rows_than_were_chosen(cfg, monkeypatch):
    monkeypatch.setattr(context, "free_memory", lambda device: 10**6)
    trainer = build_trainer(cfg())
    encoder = trainer.model.encode_prompts
    advised = trainer.smaller_settings()["TRAINER.COOP.CHUNK_ROWS"]
    assert advised == min(encoder.chunk_rows, encoder.n_rows) // 2 > 0


def test_a_single_row_at_once_is_told_of_no_fewer(cfg):
    """0 would be all at once."""
    trainer = build_trainer(cfg("TRAINER.COOP.CHUNK_ROWS", 1))
    assert "TRAINER.COOP.CHUNK_ROWS" not in trainer.smaller_settings()


def test_a_tower_that_encodes_all_positions_has_as_many_rows_for_short_names_as_for_long_ones(monkeypatch):
    monkeypatch.setattr(context, "free_memory", lambda device: 10**8)
    siglip = towers("siglip")
    names = ("a", "golden_retriever dog")
    found = [context.rows_at_once(siglip, lay_out([name], 2, tokenizer=siglip.tokenizer)) for name in names]
    assert found[0] == found[1] > 1
