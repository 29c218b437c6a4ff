"""What stands below a table: how numbers were selected, tested, set and measured; and the marks of the numbers."""

import csv
import io
import re
from dataclasses import replace

import pytest

import report
from reports.experiments import DATASETS, base_classes, coop, coop_config, linear_probe, new_classes, zero_shot
from reports.statistics import warnings_of
from reports.tables.cells import Cost, PeakMemory, Result
from reports.tables.notes import notes
from reports.tables.rows import Average
from reports.tables.table import Row, Table, fill
from tests.support.made_up_results import write_results

COCOOP = "CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1"
FEW_SHOT = {"epoch": "none", "hyperparameters": "few-shot validation"}
FULL = {"epoch": "none", "hyperparameters": "full validation"}
ORACLE = {"epoch": "test (oracle)", "hyperparameters": "none"}
FULL_NOTE = "† the hyper-parameters were chosen by the full validation set, which has more images than the shots."
ORACLE_NOTE = "‡ the epoch was chosen by test images (oracle): on new images the accuracy may be lower."
FORMATS = ("text", "markdown", "latex", "html", "csv")


@pytest.fixture
def reported(tmp_path, call):
    """reported(TABLE) -> the report of a table in each format."""
    return lambda table: {
        kind: call(report.main, table, "--output-dir", tmp_path, "--format", kind)[1] for kind in FORMATS
    }


def csv_cells(text):
    return {(row["row"], row["column"]): row for row in csv.DictReader(io.StringIO(text)) if row["row"]}


def notes_of(table, output):
    return notes(fill(report.select([table])[0], output))


def test_a_number_carries_the_mark_of_its_selection_in_every_format(tmp_path, reported):
    write_results(tmp_path, coop("dtd", "rn50", n_ctx=4).folder, {1: 61.0, 2: 61.0}, selection=FEW_SHOT, setting=[])
    write_results(tmp_path, coop("dtd", "rn50", n_ctx=8).folder, {1: 62.0, 2: 62.0}, selection=FULL)
    both = {"epoch": "test (oracle)", "hyperparameters": "full validation"}
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 63.0, 2: 63.0}, selection=both)
    out = reported("context_length")
    assert re.search(r"^DTD +61\.00 \+- 0\.00 +62\.00 \+- 0\.00† +63\.00 \+- 0\.00†‡$", out["text"], re.MULTILINE)
    assert "| DTD | 61.00 +- 0.00 | 62.00 +- 0.00† | 63.00 +- 0.00†‡ |" in out["markdown"]
    assert r"61.00 $\pm$ 0.00 & 62.00 $\pm$ 0.00$^{\dagger}$ & 63.00 $\pm$ 0.00$^{\dagger\ddagger}$ \\" in out["latex"]
    assert out["html"].count('<sup title="full validation">†</sup>') == 2  # of DTD and of the average
    assert out["html"].count('<sup title="full validation; test (oracle)">†‡</sup>') == 2
    found = csv_cells(out["csv"])
    assert found["DTD", "M=16"]["labels"] == "full validation; test (oracle)"
    assert (found["DTD", "M=4"]["labels"], found["DTD", "M=8"]["measured"]) == ("", "62.0")
    for kind, text in out.items():
        first, second = FULL_NOTE, ORACLE_NOTE
        if kind == "latex":
            first, second = first.replace("†", r"$^{\dagger}$"), second.replace("‡", r"$^{\ddagger}$")
        assert 0 < text.index(first) < text.index(second), kind


def test_an_average_and_an_h_carry_the_marks_of_what_they_are_of(tmp_path, reported):
    for dataset, selection in (("dtd", FEW_SHOT), ("eurosat", ORACLE)):
        write_results(tmp_path, base_classes(dataset, *COCOOP).folder, {1: 80.0}, selection=selection)
        write_results(tmp_path, new_classes(dataset, *COCOOP).folder, {1: 60.0}, selection=FEW_SHOT)
    found = csv_cells(reported("base_to_new")["csv"])
    labels = {key: line["labels"] for key, line in found.items() if line["labels"]}
    assert set(labels.values()) == {"test (oracle)"}
    assert labels.keys() == {
        ("EuroSAT, CoCoOp", "Base"),
        ("EuroSAT, CoCoOp", "H"),
        ("Average, CoCoOp", "Base"),
        ("Average, CoCoOp", "H"),
        ("Average of H, CoCoOp", "H"),
    }


def test_settings_have_marks_too_and_a_label_of_a_later_version_its_own(tmp_path):
    settings = ["transductive", "open-world", "with {braces}"]
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0}, setting=settings)
    assert notes_of("context_length", tmp_path) == [
        "§ transductive: learned with test images, without their labels.",
        "¶ open-world: tested on base and new classes together.",
        "‖ with {braces}.",
    ]


def test_a_choice_that_is_not_known_is_marked(tmp_path, reported):
    """As of a test with --load-epoch: whoever gave the number chose it, nobody knows by what."""
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0}, selection={"epoch": None, "hyperparameters": "none"})
    assert notes_of("context_length", tmp_path) == ["‖ it is not known by which images the epoch was chosen."]
    assert r"60.00$^{\|}$" in reported("context_length")["latex"]


def test_runs_of_earlier_versions_have_no_marks(tmp_path, reported):
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0, 2: 61.0})
    out = reported("context_length")
    assert not any(mark in text for text in out.values() for mark in "†‡§¶‖")
    assert notes_of("context_length", tmp_path) == []


def test_results_may_say_anything(tmp_path):
    """Of a hostile or broken results.json what cannot be read is not said."""
    anything = {"selection": ["full validation"], "setting": "open-world", "digests": 7, "provenance": [], "cost": "x"}
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0}, **anything)
    write_results(tmp_path, coop("dtd", "rn50", n_ctx=4).folder, {1: 60.0}, selection={"epoch": 3}, setting=[3, "a\nb"])
    assert notes_of("context_length", tmp_path) == ["‖ 'a\\nb'.", "‖ 3."]


def test_seeds_that_were_selected_differently_are_a_warning(tmp_path, call):
    folder = coop("dtd", "rn50").folder
    for seed, selection in ((1, FEW_SHOT), (2, FEW_SHOT), (3, ORACLE)):
        write_results(tmp_path, folder, {seed: 60.0}, selection=selection)
    out = call(report.main, "context_length", "--output-dir", tmp_path)[1]
    assert (
        f"Warning: {folder}: The runs of this average were selected differently: epoch by none, hyperparameters by "
        "few-shot validation in seed1, seed2; epoch by test (oracle), hyperparameters by none in seed3. Average those "
        "of each rule."
    ) in out
    runs = [replace(run, selection=FEW_SHOT) for run in Result(coop("dtd", "rn50")).measure(tmp_path).runs]
    assert warnings_of(runs) == []
    assert warnings_of([runs[0], replace(runs[1], selection={})]) == []  # one of an earlier version


def test_an_average_of_a_doubtful_mean_is_doubtful(tmp_path, reported):
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0}, warnings=["It is near chance."])
    for n_ctx in (4, 16):
        write_results(tmp_path, coop("eurosat", "rn50", n_ctx=n_ctx).folder, {1: 70.0})
    out = reported("context_length")["text"]
    assert re.search(
        r"^Average +70\.00 \(over 1 of 11\) +missing +65\.00 \(over 2 of 11, warning\)$", out, re.MULTILINE
    )
    assert out.count("It is near chance.") == 1


def test_results_of_other_transforms_and_templates_are_named(tmp_path):
    def write(experiment, test_transform, templates):
        digests = {"test_transform": test_transform, "templates": templates, "train_transform": test_transform + "x"}
        write_results(tmp_path, experiment.folder, {1: 60.0} if experiment.seeded else 60.0, digests=digests)

    for dataset in ("dtd", "eurosat"):
        write(zero_shot(dataset, "rn50"), "a", f"of {dataset}")  # each data set has templates of its own
        write(linear_probe(dataset, "rn50"), "a", None)
        write(coop(dataset, "rn50"), "b", None)
    write(zero_shot("food101", "rn50"), "c", "one")
    write(linear_probe("food101", "rn50", shots=8), "c", "one")
    write(linear_probe("food101", "rn50"), "c", "other")
    assert notes_of("few_shot", tmp_path) == [
        "On DTD, EuroSAT the results were tested with different transforms: zero-shot CLIP, linear probe / CoOp, end. "
        "The digests are in results.json.",
        "On Food101 the results were made with different templates: zero-shot CLIP, linear probe (8 shots) / linear "
        "probe (16 shots). The digests are in results.json.",
    ]


def test_many_data_sets_are_counted(tmp_path):
    for dataset in DATASETS:
        for n_ctx in (4, 8):
            folder = coop(dataset, coop_config("rn50", dataset), n_ctx=n_ctx).folder
            write_results(tmp_path, folder, {1: 60.0}, digests={"test_transform": f"of {n_ctx}"})
    [said] = notes_of("context_length", tmp_path)
    assert said.startswith("On all 11 data sets the results were tested with different transforms: M=4 / M=8.")


def test_settings_that_differ_between_data_sets_are_listed(tmp_path):
    """Not the data set's own, nor seeds; keys at their default count, and a test's are those of its training."""
    for shots in (1, 16):
        for dataset in ("imagenet", "dtd", "food101"):
            cfg = coop_config("rn50", dataset, shots=shots)
            settings = {"OPTIM.MAX_EPOCH": 50 if "ep50" in cfg else 200, "SEED": len(dataset)}
            settings |= {"DATASET.FEWSHOT_FILE": f"{dataset}.json", "OUTPUT_DIR": dataset}
            settings |= {"OPTIM.LR": 0.01} if dataset == "dtd" else {}
            write_results(tmp_path, coop(dataset, cfg, shots=shots).folder, {1: 60.0}, settings=settings)
    assert notes_of("few_shot", tmp_path) == [
        "CoOp, end: OPTIM.LR is 0.01 on DTD, 0.0003 on the others.",
        "CoOp, end (16 shots): OPTIM.MAX_EPOCH is 50 on ImageNet, 200 on the others.",
    ]


def test_methods_with_the_same_difference_share_a_line(tmp_path):
    for n_ctx in (4, 8, 16):
        for dataset in ("imagenet", "dtd"):
            epochs = {"OPTIM.MAX_EPOCH": 50 if dataset == "imagenet" or n_ctx == 8 else 200}
            cfg = coop_config("rn50", dataset)
            write_results(tmp_path, coop(dataset, cfg, n_ctx=n_ctx).folder, {1: 60.0}, settings=epochs)
    assert notes_of("context_length", tmp_path) == ["M=4; M=16: OPTIM.MAX_EPOCH is 50 on ImageNet, 200 on DTD."]


def test_the_settings_of_a_test_are_those_of_its_training(tmp_path):
    for dataset, epochs in (("dtd", 50), ("eurosat", 100)):
        trained_with = {"OPTIM.MAX_EPOCH": epochs}
        write_results(tmp_path, base_classes(dataset, *COCOOP).folder, {1: 80.0}, settings=trained_with)
        folder = new_classes(dataset, *COCOOP).folder
        write_results(tmp_path, folder, {1: 60.0}, settings={"OPTIM.MAX_EPOCH": 7}, trained_with=trained_with)
    assert notes_of("base_to_new", tmp_path) == ["CoCoOp: OPTIM.MAX_EPOCH is 50 on DTD, 100 on EuroSAT."]


def cost_table(*labels):
    columns = ("DTD", "Seconds", "GB")
    rows = []
    for n_ctx, label in zip((4, 8, 16), labels):
        experiment = coop("dtd", "rn50", n_ctx=n_ctx)
        rows.append(Row(label, (Result(experiment), Average((Cost(experiment),)), PeakMemory(experiment))))
    return Table("costs", "own", "Costs", columns, tuple(rows))


def test_costs_of_different_devices_are_named_and_have_no_marks(tmp_path):
    for n_ctx, device, on_gpu in ((4, "NVIDIA H200", 3.0), (8, "cpu (Xeon)", None), (16, "NVIDIA H200", 1500.0)):
        cost = {"training_s": 12.5, "testing_s": 1.0, "peak_memory_gb": 2.0, "peak_gpu_memory_gb": on_gpu}
        said = {"cost": cost, "provenance": {"device": device}, "selection": ORACLE}
        write_results(tmp_path, coop("dtd", "rn50", n_ctx=n_ctx).folder, {1: 60.0}, **said)
    filled = fill(cost_table("A", "B", "C"), tmp_path)
    memory = "Memory is the most that a run held at once: on a GPU its tensors, else its process."
    assert notes(filled) == [
        ORACLE_NOTE,
        "Costs are of different devices and do not compare: A, C on NVIDIA H200; B on cpu (Xeon).",
        memory,
    ]
    text = report.FORMATS["text"]([filled], [], tmp_path)
    lines = [line.split() for line in text.splitlines()]
    assert ["A", "60.00‡", "12.50", "3.00"] in lines and ["C", "60.00‡", "12.50", "1,500"] in lines
    assert notes(fill(cost_table("A"), tmp_path)) == [ORACLE_NOTE, memory]


def test_marks_do_not_move_numbers_out_of_their_column(tmp_path, call):
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0}, selection=ORACLE)
    write_results(tmp_path, coop("eurosat", "rn50").folder, {1: 9.0, 2: 9.0}, selection=FULL)
    write_results(tmp_path, coop("food101", "rn50").folder, {1: 60.0})
    lines = call(report.main, "context_length", "--output-dir", tmp_path)[1].splitlines()
    ends = {line.index(number) + len(number) for line in lines for number in ("60.00", " 9.00") if number in line}
    assert len(ends) == 1


def test_a_terminal_without_the_marks_gets_the_report_all_the_same(tmp_path, monkeypatch):
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0}, selection=ORACLE)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    assert report.main(["context_length", "--output-dir", str(tmp_path)]) == 0
    stdout.flush()
    assert b"60.00\\u2021" in stdout.buffer.getvalue()


def test_tables_whose_rows_are_data_sets_are_known_as_such():
    """Their columns are the methods."""
    found = {table.name for table in report.select(["coop", "cocoop", "shapes"]) if table.methods_are_columns}
    papers = {"initialisation", "context_length", "cross_dataset", "all_classes"}
    assert found == papers | {"shapes_initialisation", "shapes_all_classes"}


def test_what_all_seeds_warn_of_is_said_once(tmp_path, call):
    folder = coop("dtd", "rn50").folder
    write_results(tmp_path, folder, {1: 60.0, 3: 60.0}, warnings=["It is near chance."])
    write_results(tmp_path, folder, {2: 60.0}, warnings=["Another reason."])
    out = call(report.main, "context_length", "--output-dir", tmp_path)[1]
    assert [line for line in out.splitlines() if line.startswith("Warning")] == [
        f"Warning: {folder}: seed1, seed3: It is near chance.",
        f"Warning: {folder}: seed2: Another reason.",
    ]
