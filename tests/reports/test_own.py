"""report.py with methods and data sets that no paper has: beside the papers' methods, or in tables of their own."""

import csv
import io

import pytest

import report
from reports.experiments import base_classes, coop, new_classes, transfer, transfer_source, zero_shot
from tests.support.made_up_results import write_results

COCOOP, OWN = ("CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1"), ("Mine", "vit_b16_ep20")


def write_base_new(output, dataset, method, base, new, **more):
    write_results(output, base_classes(dataset, *method).folder, base, **more)
    write_results(output, new_classes(dataset, *method).folder, new, **more)


@pytest.fixture
def rows(call):
    """rows(output, TABLE): (row, column) -> (paper, measured, remarks) of a report's cells with a value."""

    def rows(output, *tables):
        code, out, err = call(report.main, *tables, "--output-dir", output, "--format", "csv")
        assert code == 0, err
        found = csv.DictReader(io.StringIO(out))
        return {
            (row["table"], row["row"], row["column"]): (row["paper"], row["measured"], row["problem"])
            for row in found
            if row["measured"]
        }

    return rows


def test_an_own_method_stands_beside_the_papers_and_has_its_h(tmp_path, rows):
    write_base_new(tmp_path, "dtd", COCOOP, {1: 80.0}, {1: 60.0})
    write_base_new(tmp_path, "dtd", OWN, {1: 70.0, 2: 80.0}, {1: 40.0, 2: 60.0})
    found = rows(tmp_path, "base_to_new")
    assert found["base_to_new", "DTD, CoCoOp", "H"][:2] == ("64.85", "68.5714")  # 2 * 80 * 60 / 140
    assert found["base_to_new", "DTD, Mine", "Base"][:2] == ("", "75.0")
    assert found["base_to_new", "DTD, Mine", "H"][:2] == ("", "60.0")  # 2 * 75 * 50 / 125
    assert found["base_to_new", "Average, Mine", "H"] == ("", "60.0", "over 1 of 11")
    assert not any(row.startswith("EuroSAT") for _, row, _ in found)


def test_in_latex_and_text(tmp_path, call):
    write_base_new(tmp_path, "dtd", OWN, {1: 75.0}, {1: 50.0})
    write_base_new(tmp_path, "birds", OWN, {1: 75.0}, {1: 25.0})
    out = call(report.main, "--output-dir", tmp_path, "--format", "latex")[1]
    assert "     & Mine & 75.00 &  &  & 50.00 &  &  & 60.00 &  &  \\\\" in out
    assert "    birds, ViT-B/16 & Mine & 75.00 & 25.00 & 37.50 \\\\" in out and r"\label{tab:own_base_to_new}" in out
    out = call(report.main, "base_to_new", "--output-dir", tmp_path)[1]
    assert "68.14" not in out  # ImageNet's: nothing of one's own is there


def test_the_papers_numbers_stay_beside_an_own_method(tmp_path, call):
    """Though nobody ran the papers' methods there."""
    write_base_new(tmp_path, "dtd", OWN, {1: 75.0}, {1: 50.0})
    lines = call(report.main, "base_to_new", "--output-dir", tmp_path)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("DTD"))
    labels = ("zero-shot CLIP", "CoOp", "CoCoOp", "Mine")
    assert all(f" {label} " in line for label, line in zip(labels, lines[start : start + 4], strict=True))
    assert "53.24" in lines[start] and "79.44" in lines[start + 1] and "77.01" in lines[start + 2]
    assert "reproduce.sh base_to_new makes them" in "".join(lines) and "111 of 111" in "".join(lines)


def test_few_shot_runs(tmp_path, rows):
    for shots, accuracy in ((1, 50.0), (16, 70.0)):
        for trainer in ("CoOp", "Mine"):
            folder = coop("dtd", "rn50", trainer=trainer, shots=shots).folder
            none = dict.fromkeys(("n_ctx", "csc", "class_token_position")) if trainer == "Mine" else {}
            write_results(tmp_path, folder, {1: accuracy}, trainer=trainer, **none)
            write_results(tmp_path, folder.replace("dtd/", "birds/"), {1: accuracy - 5}, trainer=trainer, **none)
    write_results(tmp_path, zero_shot("birds", "rn50").folder, 40.0)
    found = rows(tmp_path)
    assert found["few_shot", "DTD, Mine", "16 shots"][1] == "70.0"  # without a context, whatever the folder is called
    assert found["own_few_shot", "birds, RN50, Mine", "1 shot"][1] == "45.0"
    assert found["own_few_shot", "birds, RN50, CoOp (M=16, end)", "16 shots"][1] == "65.0"
    assert found["own_few_shot", "birds, RN50, zero-shot CLIP", "0 shots"][1] == "40.0"
    assert not any(table == "few_shot" and "birds" in row for table, row, _ in found)


def test_a_config_may_have_any_name(tmp_path, rows):
    own = "Mine", "vit_b16_lr0.01-cosine"
    write_results(tmp_path, transfer_source(*own, source="birds").folder, {1: 70.0})
    write_base_new(tmp_path, "dtd", own, {1: 75.0}, {1: 50.0})
    found = {key: value[1] for key, value in rows(tmp_path).items()}
    assert found["own_few_shot", "birds, ViT-B/16, Mine (lr0.01-cosine)", "16 shots"] == "70.0"
    assert found["base_to_new", "DTD, Mine", "H"] == "60.0"


def test_two_folders_of_one_method_are_two_rows(tmp_path, rows):
    """It has no context vectors, whatever number the folder names."""
    none = dict.fromkeys(("n_ctx", "csc", "class_token_position"))
    for n_ctx, accuracy in ((4, 60.0), (16, 70.0)):
        write_results(tmp_path, coop("birds", "rn50", trainer="Mine", n_ctx=n_ctx).folder, {1: accuracy}, **none)
    found = {row: value[1] for (_, row, _), value in rows(tmp_path, "own").items()}
    assert found == {
        "birds, RN50, Mine [nctx4_cscFalse_ctpend]": "60.0",
        "birds, RN50, Mine [nctx16_cscFalse_ctpend]": "70.0",
    }


def test_transfer_and_all_classes(tmp_path, rows):
    """A column where the papers' methods are columns, a row where they are rows."""
    write_results(tmp_path, transfer_source(*OWN, source="imagenet").folder, {1: 70.0})
    for dataset, accuracy in (("dtd", 40.0), ("eurosat", 50.0), ("imagenet_r", 60.0)):
        write_results(tmp_path, transfer(dataset, *OWN, source="imagenet").folder, {1: accuracy})
    write_results(tmp_path, transfer("dtd", *COCOOP, source="imagenet").folder.replace("/dtd", "/birds"), {1: 30.0})
    write_results(tmp_path, new_classes("dtd", *OWN, classes="all").folder, {1: 55.0})
    found = {key: value[1] for key, value in rows(tmp_path).items()}
    assert found["cross_dataset", "ImageNet", "Mine"] == "70.0"
    assert found["cross_dataset", "Average of the ten", "Mine"] == "45.0"  # over 2 of 10
    assert found["domain_generalisation", "Mine", "ImageNetR"] == "60.0"
    assert found["all_classes", "DTD", "Mine"] == "55.0"
    assert found["own_transfer", f"birds, CoCoOp ({COCOOP[1]})", "Accuracy"] == "30.0"


def test_another_backbone_than_the_tables(tmp_path, rows):
    write_base_new(tmp_path, "dtd", ("Mine", "rn50"), {1: 75.0}, {1: 50.0})
    found = rows(tmp_path)
    assert found["own_base_to_new", "DescribableTextures, RN50, Mine", "H"][1] == "60.0"
    assert {table for table, *_ in found} == {"own_base_to_new"}


def test_results_of_another_method_are_not_counted(tmp_path, call):
    write_base_new(tmp_path, "birds", OWN, {1: 75.0}, {1: 50.0}, trainer="CoOp", seed=1)
    code, _, err = call(report.main, "own", "--output-dir", tmp_path)
    assert code == 1
    assert err.startswith(f"Error: {tmp_path} holds no finished run of a method or a data set of your own.\n")
    assert f"{base_classes('birds', *OWN).folder}/seed1: results.json is of another run: trainer is 'CoOp'" in err


def test_where_nothing_is_ones_own_the_tables_are_the_papers(tmp_path, call):
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0})
    out = call(report.main, "--output-dir", tmp_path)[1]
    assert "own" not in "".join(line for line in out.splitlines() if line.endswith("]"))


@pytest.mark.parametrize("name", ["text", "csv", "html"])
def test_runs_for_two_numbers_of_epochs_are_shown_once_and_the_other_is_named(tmp_path, call, name):
    for cfg, accuracy in (("tiny", 60.0), ("tiny_ep50", 70.0)):
        write_results(tmp_path, transfer_source("Mine", cfg, source="birds", shots=1).folder, {1: accuracy})
    code, out, _ = call(report.main, "own_few_shot", "--output-dir", tmp_path, "--format", name)
    assert code == 0
    shown, other = ("tiny", "tiny_ep50") if "60.0" in out else ("tiny_ep50", "tiny")
    assert f"birds/Mine/{other}_1shots is left out: {shown} is shown instead" in out
