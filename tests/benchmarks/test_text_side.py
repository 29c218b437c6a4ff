"""Benchmarks of the text tower: both sides compute the same, and count what they compute."""

import pytest
import torch

from benchmarks import cocoop, deep_prompts, measure, memory, text_encoder
from clip.model import build_model
from tests.benchmarks.checks import check_exact, check_rows, rows_of
from tests.support.backbones.tiny_open_clip import write_model
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tiny_run import build_trainer, tiny_cfg
from tests.support.tolerance import EXACT, assert_near
from tests.trainers.in_towers.by_hand import pairs_of


def test_text_encoder(exact_sides, tmp_path, capsys):
    words = ["--classes", "3", "--many-classes", "5", "--repeats", "2", "--json", str(tmp_path / "results.json")]
    text_encoder.main(words)
    content, rows = rows_of(words)
    check_exact(exact_sides, rows)
    assert (content["benchmark"], content["settings"]["classes"]) == ("text_encoder", 3)
    positions = {row["case"]: row["positions"] for row in rows}
    # face, leopard, motorbike: a name, a full stop and an end token behind 16 vectors
    assert positions["unified, end"][0] == 3 * 77
    assert positions["class-specific, end"][1] - positions["unified, end"][1] == 2 * 16
    assert rows[-1]["naive_s"] == rows[-1]["ratios"] == []
    assert len(rows[0]["naive_s"]) == len(rows[0]["ours_s"]) == 2
    printed = capsys.readouterr().out
    assert all(row["case"] in printed for row in content["rows"])


def test_text_encoder_of_a_tower_of_open_clip(tmp_path, capsys):
    """The naive side is open_clip's own module: in float64 both sides are equal."""
    write_model(tmp_path / "model", "wide-heads")
    backbone = f"open_clip:{tmp_path / 'model'}"
    words = f"--classes 2 --many-classes 3 --repeats 1 --backbone {backbone} --json {tmp_path / 'all.json'}".split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoder, "N_CTX", 4)  # the tower takes 16 tokens
        text_encoder.main(words)
        clip_model, naive = text_encoder.build_both(backbone, "fp32")
        assert type(naive.text).__module__ == "open_clip.transformer"
        sides = text_encoder.Sides(clip_model.double(), 2, encode_naively=naive.double())
        sides.learner.double()
        assert_near(sides.our_step(), sides.naive_step(), EXACT)
    _, rows = rows_of(words)
    check_rows(rows)
    assert rows[0]["positions"] == [2 * 16, 4 + 2 * 3]
    assert f"{backbone}'s text tower" in capsys.readouterr().out


def test_cocoop(exact_sides, tmp_path, capsys):
    words = ["--classes", "2", "--tested", "5", "--many-classes", "3", "--repeats", "1"]
    words += ["--json", str(tmp_path / "results.json")]
    cocoop.main(words)
    _, rows = rows_of(words)
    check_exact(exact_sides, rows)
    assert [row["positions"][0] for row in rows] == [2 * 77, 4 * 2 * 77, 5 * 4 * 77]
    assert rows[2]["note"] == "the naive side extrapolated from 4 images"
    assert rows[2]["note"] in capsys.readouterr().out


def test_deep_prompts(exact_sides, tmp_path, capsys):
    words = ["--classes", "3", "--images", "2", "--repeats", "2", "--json", str(tmp_path / "results.json")]
    deep_prompts.main(words)
    content, rows = rows_of(words)
    check_rows(rows)
    check_exact(exact_sides, rows[:3])
    parts = ["text forward", "image forward", "loss", "text backward", "image backward", "optimiser"]
    with_frozen = [*parts[:2], "frozen image forward", *parts[2:]]
    assert [row["case"] for row in rows] == [
        *(f"{method}, text" for method in ("MaPLe", "PromptSRC", "TCP")),
        *(f"MaPLe, {part}" for part in ("step", *parts, "checkpointed")),
        *(f"PromptSRC, {part}" for part in ("step", *with_frozen, "checkpointed")),
    ]
    # face, leopard, motorbike: a name, a full stop and an end token, behind "a photo of a" or four vectors of each
    assert [row["positions"] for row in rows[:3]] == [[3 * 77, n] for n in (4 + 3 * 3, 4 + 3 * 3, 3 * (4 + 3))]
    step, *its_parts = rows[3:10]
    for side in ("naive_s", "ours_s"):
        assert [sum(seconds) for seconds in zip(*(row[side] for row in its_parts))] == pytest.approx(step[side])
    peaks = [row["case"] for row in content["rows"] if "peak_gb" in row]
    assert peaks == [f"{name}, {side}" for name in ("MaPLe", "PromptSRC") for side in ("naive", "ours", "checkpointed")]
    assert "times our step as it is" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["MaPLe", "PromptSRC"])
def test_the_measured_step_is_the_trainers(small_tower, tiny_files, tmp_path, monkeypatch, name):
    """From the same vectors and images: the gradients that the trainer gets, also in float64 and with checkpointing."""
    options = ("N_CTX_TEXT", 4, "N_CTX_VISION", 4) if name == "PromptSRC" else ()
    trainer = build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *pairs_of(name, *options)))
    monkeypatch.setattr(deep_prompts, "classnames", lambda n: trainer.dm.dataset.classnames[:n])
    learner, images = trainer.model.prompt_learner, golden_images("vit")[:3]
    trainer.forward_backward({"img": images, "label": torch.arange(3)})
    expected = [parameter.grad.clone() for parameter in learner.parameters()]
    start = build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *pairs_of(name, *options)))
    values = dict(start.model.prompt_learner.named_parameters())
    for dtype, checkpointed in ((torch.float32, False), (torch.float32, True), (torch.float64, False)):
        sides = deep_prompts.Sides(deep_prompts.build_clip("fp32").to(dtype), name, 3)
        sides.learner.to(dtype).load_state_dict(values, strict=False)
        step = deep_prompts.Step(sides, 3, checkpointed=checkpointed)
        step.images = images
        if name == "PromptSRC":
            step.anchors = trainer.zero_shot_features.to(dtype)
        found = [step.gradient(side).clone() for side in ("ours", "naive")]
        assert_near(found[0], torch.cat([gradient.flatten() for gradient in expected]))
        assert_near(*found, EXACT if dtype == torch.float64 else None)


def test_memory(exact_sides, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(memory, "build_text_tower", text_encoder.build_text_tower)
    words = ["--classes", "30", "--chunks", "60", "30", "--repeats", "1", "--json", str(tmp_path / "results.json")]
    memory.main(words)
    content, rows = rows_of(words)
    check_exact(exact_sides, rows)
    assert [row["case"] for row in content["rows"][:3]] == ["all at once", "CHUNK_ROWS 60", "CHUNK_ROWS 30"]
    assert [row["case"] for row in content["rows"][3:]] == ["CHUNK_ROWS 0", "CHUNK_ROWS 60", "CHUNK_ROWS 30"]
    assert capsys.readouterr().out.count(" times as long") == 2


def test_operations_are_those_of_the_formula(both_attentions):
    """Linear layers forward and backward to the input, of the last layer only what the end tokens need."""
    clip_model, width, n_layers, embed_dim = build_model(golden_state_dict("vit")).requires_grad_(False), 64, 3, 32
    sides = text_encoder.Sides(clip_model, 6)
    n_rows = sides.positions[1]
    full_layers = (n_layers - 1) * n_rows * 12 * width**2
    last_layer = n_rows * 2 * width**2 + 6 * (10 * width**2 + width * embed_dim)
    expected = 2 * 2 * (full_layers + last_layer)
    counted = measure.count_flops(sides.our_step)
    assert expected < counted < 1.2 * expected  # attention's own come on top


def test_the_size_that_the_device_has_room_for_is_named(exact_sides):
    sides = text_encoder.Sides(text_encoder.build_text_tower(), 3, chunk_rows=-1)
    assert memory.chunk_name(-1, sides) == "CHUNK_ROWS -1 (16,384)"  # of a CPU
    assert memory.chunk_name(60, sides) == "CHUNK_ROWS 60"


def test_ours_compiled_against_ours_as_it_is(exact_sides, monkeypatch, tmp_path):
    monkeypatch.setattr(text_encoder.PromptTrainer, "compile_options", {"backend": "eager"})
    words = ["--compile", "--classes", "3", "--repeats", "2", "--json", str(tmp_path / "results.json")]
    text_encoder.main(words)
    _, [row] = rows_of(words)
    assert row["case"].startswith("unified, end, compiled in ") and row["difference"] == 0
    assert len(row["naive_s"]) == len(row["ours_s"]) == len(row["ratios"]) == 2
