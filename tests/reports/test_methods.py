"""The tables of methods: published numbers checked by arithmetic, and what is read for a cell."""

import csv
import io
import re
import statistics

import pytest

import report
from reports.experiments import DATASETS, TRAINERS, base_classes, coop, few_shot, new_classes
from reports.figures.few_shot import average_lines, find_curves
from reports.tables.catalogue import TABLES
from reports.tables.paper import PAPER, PUBLISHED
from reports.tables.table import fill
from tests.support.made_up_results import write_results

KGCOOP = ("KgCoOp", "vit_b16_ep100_ctxv1")
AVERAGES = {  # of the 11 data sets, worked out by hand
    "zero-shot CLIP": [58.89],
    "CLIP-Adapter": [62.67, 65.55, 68.61, 71.40, 74.44],
    "Tip-Adapter": [62.33, 64.62, 66.54, 68.50, 70.32],
    "Tip-Adapter-F": [64.60, 66.65, 69.67, 72.45, 75.83],
    "GDA": [62.19, 66.20, 69.77, 73.31, 76.05],
}
ROUNDED = 0.0101  # what averages and H of rounded numbers may be off


def cells(name, output):
    """(row, column) -> the filled-in cell."""
    return {(cell.row.name, cell.column): cell for cell in fill(TABLES[name], output).cells()}


@pytest.fixture
def report_rows(call):
    """report_rows(output, TABLE...): (table, row, column) -> measured, of a report's cells with a value."""

    def report_rows(output, *tables):
        code, out, err = call(report.main, *tables, "--output-dir", output, "--format", "csv")
        assert code == 0, err
        rows = csv.DictReader(io.StringIO(out))
        return {(row["table"], row["row"], row["column"]): row["measured"] for row in rows if row["measured"]}

    return report_rows


class TestPublished:
    @pytest.mark.parametrize("label", AVERAGES)
    def test_few_shot_rows_have_the_averages_that_are_known_of_them(self, label):
        rows = PUBLISHED["few_shot"][label]
        assert list(rows) == list(DATASETS.values())
        assert [statistics.fmean(of) for of in zip(*rows.values(), strict=True)] == pytest.approx(
            AVERAGES[label], abs=ROUNDED
        )

    def test_base_to_new_agrees_with_itself(self):
        averages, per_dataset = PUBLISHED["base_to_new"]["average"], PUBLISHED["base_to_new"]["per_dataset"]
        assert list(per_dataset) == list(DATASETS.values())
        for label, (base, new, h) in averages.items():
            assert h == pytest.approx(2 * base * new / (base + new), abs=ROUNDED), label
            rows = [of[label] for of in per_dataset.values() if label in of]
            assert len(rows) == (0 if label in ("CLIP-Adapter", "VPT", "deep language", "IVLP", "2SFS") else 11)
            means = [statistics.fmean(of) for of in zip(*rows)]
            assert not rows or means == pytest.approx([base, new], abs=ROUNDED), label

    def test_averages_of_transfer_are_those_of_the_rows_that_a_paper_prints(self):
        for table, n_targets in (("cross_dataset", 10), ("domain_generalisation", 4)):
            for label, (source, average) in PUBLISHED[table].items():
                printed = PAPER[table].get(label, [source, *[average] * n_targets])
                assert printed[0] == source
                assert average == pytest.approx(statistics.fmean(printed[1 : 1 + n_targets]), abs=ROUNDED), label

    def test_it_stands_where_it_belongs(self):
        def papers(name):
            return {(row.name, c): cell and cell.paper for row in TABLES[name].rows
                    for c, cell in zip(TABLES[name].columns, row.cells)}  # fmt: skip

        few = papers("methods_few_shot")
        assert few["EuroSAT, Tip-Adapter-F", "16 shots"] == 84.54
        assert few["Average, CLIP-Adapter", "1 shot"] == 62.67
        assert few["DTD, zero-shot CLIP", "0 shots"] == 42.20
        assert few["ImageNet, zero-shot CLIP", "0 shots"] is None  # of other prompts
        assert few["DTD, CoOp", "16 shots"] is None
        vit = papers("methods_few_shot_vit")
        assert (vit["Average, MaPLe", "16 shots"], vit["Average, CoOp", "1 shot"]) == (81.8, 67.5)
        assert vit["DTD, MaPLe", "16 shots"] is vit["Average, TCP", "16 shots"] is None
        new = papers("methods_base_to_new")
        assert new["DTD, KgCoOp", "New"] == 54.99
        assert new["DTD, KgCoOp", "H"] == 64.35  # 2 * 77.55 * 54.99 / 132.54 = 64.3500
        assert new["Average, KgCoOp", "H"] == 77.00
        assert new["Average, CLIP-Adapter", "New"] == 73.52
        assert (new["Average of H, KgCoOp", "H"], new["Average of H, CoOp", "H"]) == (76.71, 70.83)
        assert papers("methods_cross_dataset")["Average of the ten", "ProGrad"] == 62.71
        assert papers("methods_cross_dataset")["DTD", "CoCoOp"] == 45.73
        assert papers("methods_domain_generalisation")["KgCoOp", "Average of the four"] == 60.11
        assert papers("methods_domain_generalisation")["CoOp", "ImageNetA"] == 49.71


class TestCells:
    def test_base_to_new_has_the_open_world_and_what_training_cost(self, tmp_path):
        costs = {"training_s": 90.0, "testing_s": 5.0, "peak_memory_gb": 2.5, "peak_gpu_memory_gb": None}
        for dataset, base in (("dtd", 80.0), ("eurosat", 60.0)):
            write_results(tmp_path, base_classes(dataset, *KGCOOP).folder, {1: base}, n_params=2048, cost=costs)
            costs = {**costs, "training_s": 30.0}
            write_results(tmp_path, new_classes(dataset, *KGCOOP).folder, {1: 40.0}, n_params=2048, cost=costs)
            write_results(tmp_path, new_classes(dataset, *KGCOOP, classes="all").folder, {1: 50.0})
        found = {key: cell.value.value for key, cell in cells("methods_base_to_new", tmp_path).items()}
        of_dtd = [found["DTD, KgCoOp", column] for column in TABLES["methods_base_to_new"].columns]
        assert of_dtd == pytest.approx([80.0, 40.0, 53.3333, 50.0, 2048, 90.0, 2.5], abs=1e-4)
        assert found["Average, KgCoOp", "All"] == 50.0
        assert found["Average, KgCoOp", "Seconds"] == 60.0  # 90 and 30
        assert found["Average, KgCoOp", "H"] == pytest.approx(2 * 70 * 40 / 110)
        assert found["Average of H, KgCoOp", "H"] == pytest.approx((2 * 80 * 40 / 120 + 2 * 60 * 40 / 100) / 2)

    def test_few_shots_have_what_16_of_them_cost_of_ones_own_method_too(self, tmp_path, report_rows):
        for shots in (1, 16):
            cost = {"training_s": 10.0 * shots, "testing_s": 5.0, "peak_memory_gb": 2.5, "peak_gpu_memory_gb": None}
            for trainer in ("GDA", "Mine"):
                folder = f"dtd/{trainer}/rn50_{shots}shots"
                write_results(tmp_path, folder, {1: 60.0}, trainer=trainer, n_params=64 * shots, cost=cost)
        found = report_rows(tmp_path, "methods_few_shot")
        for row in ("DTD, GDA", "DTD, Mine"):
            of_row = {column: value for (_, name, column), value in found.items() if name == row}
            costs = {"Parameters": "1024", "Seconds": "160.0", "Memory (GB)": "2.5"}
            assert of_row == {"1 shot": "60.0", "16 shots": "60.0", **costs}

    def test_configs_of_few_shots_are_the_authors(self):
        folders = {
            ("dtd", "TaskRes", 4): "dtd/TaskRes/rn50_ep100_4shots",
            ("dtd", "TaskRes", 8): "dtd/TaskRes/rn50_8shots",
            ("imagenet", "TaskRes", 2): "imagenet/TaskRes/rn50_imagenet_ep100_2shots",
            ("imagenet", "ProGrad", 16): "imagenet/ProGrad/rn50_ep50_16shots/nctx16_cscFalse_ctpend",
            ("dtd", "ProGrad", 4): "dtd/ProGrad/rn50_ep100_4shots/nctx16_cscFalse_ctpend",
            ("dtd", "TipAdapter", 1): "dtd/TipAdapter/rn50_1shots",
        }
        for (dataset, trainer, shots), folder in folders.items():
            assert few_shot(dataset, trainer, "rn50", shots=shots).folder == folder
        maple = "dtd/MaPLe/vit_b16_c2_ep50_batch4_2ctx_few_shot_1shots"
        assert few_shot("dtd", "MaPLe", "vit_b16", shots=1).folder == maple
        assert few_shot("dtd", "TCP", "vit_b16", shots=1).folder == "dtd/TCP/vit_b16_1shots"
        assert few_shot("dtd", "CoOp", "vit_b16", shots=1).folder.startswith("dtd/CoOp/vit_b16_ep50_1shots")
        assert few_shot("shapes", "MaPLe", "tiny", shots=1).folder == "shapes/MaPLe/tiny_1shots"

    def test_what_authors_set_for_a_data_set_is_in_the_command(self):
        datasets = ("imagenet", "caltech101", "dtd", "eurosat")
        commands = {name: few_shot(name, "PromptSRC", "vit_b16", shots=4).commands[0] for name in datasets}
        late = " TRAINER.PROMPTSRC.GPA_MEAN 45 TRAINER.PROMPTSRC.GPA_STD 5"
        pairs = {name: command.split("few_shot 4")[1] for name, command in commands.items()}
        assert pairs == {"imagenet": "", "caltech101": "", "dtd": late, "eurosat": late}
        assert "GPA" not in base_classes("dtd", "PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx").commands[0]

    def test_the_average_of_domain_generalisation_leaves_the_source_out(self, tmp_path):
        write_results(tmp_path, "imagenet/KgCoOp/vit_b16_ep100_ctxv1_16shots", {1: 70.0})
        for dataset, accuracy in (("imagenetv2", 60.0), ("imagenet_a", 40.0)):
            write_results(tmp_path, f"evaluation/KgCoOp/vit_b16_ep100_ctxv1_16shots/{dataset}", {1: accuracy})
        found = cells("methods_domain_generalisation", tmp_path)["KgCoOp", "Average of the four"].value
        assert (found.value, sum(found.parts), len(found.parts)) == (50.0, 2, 4)


class TestMarks:
    """Published numbers that were chosen otherwise than by few-shot validation are marked as measured ones are."""

    @pytest.fixture
    def output(self, tmp_path):
        for dataset in ("imagenet", "dtd"):
            for trainer in ("TipAdapter", "TipAdapterF", "CLIPAdapter"):
                write_results(tmp_path, few_shot(dataset, trainer, "rn50").folder, {1: 60.0})
        return tmp_path

    def test_in_text(self, output, call):
        out = call(report.main, "methods_few_shot", "--output-dir", output)[1]
        assert re.search(r"58\.63\u2020 +60\.93\u2020", out)  # DTD, Tip-Adapter
        assert re.search(r"64\.00\u2021 +65\.51\u2021", out)  # ImageNet, Tip-Adapter-F
        assert re.search(r"61\.45\u2021 +62\.01\u2021", out)  # ImageNet, Tip-Adapter
        assert re.search(r"68\.50\u2020\u2021 +70\.32\u2020\u2021", out)  # average, Tip-Adapter
        assert re.search(r"71\.40\u2016 +74\.44\u2016", out)  # average, CLIP-Adapter
        assert "\u2021 the epoch or the hyper-parameters were chosen by test images (oracle)" in out

    def test_what_is_said_of_a_mark_is_true_of_published_and_measured_numbers(self, tmp_path, call):
        selection = {"epoch": "none", "hyperparameters": "test (oracle)"}  # of ours; the authors chose the epoch, too
        write_results(tmp_path, few_shot("dtd", "TipAdapterF", "rn50").folder, {1: 60.0}, selection=selection)
        out = call(report.main, "methods_few_shot", "--output-dir", tmp_path)[1]
        assert "\u2021 the epoch or the hyper-parameters were chosen by test images (oracle)" in out

    def test_of_what_was_read_off_a_plot(self, tmp_path, call):
        write_results(tmp_path, few_shot("dtd", "MaPLe", "vit_b16").folder, {1: 60.0})
        out = call(report.main, "methods_few_shot_vit", "--output-dir", tmp_path)[1]
        assert re.search(r"78\.90\u2248 +81\.80\u2248", out)  # average, MaPLe
        assert "\u2248 read off a plot: right to about 0.3 points." in out
        latex = call(report.main, "methods_few_shot_vit", "--output-dir", tmp_path, "--format", "latex")[1]
        assert r"81.80$^{\approx}$" in latex

    def test_in_csv_and_html(self, output, call):
        out = call(report.main, "methods_few_shot", "--output-dir", output, "--format", "csv")[1]
        rows = {(row["row"], row["column"]): row for row in csv.DictReader(io.StringIO(out))}
        of_tip = rows["DTD, Tip-Adapter-F", "16 shots"]
        assert (of_tip["paper"], of_tip["paper_labels"], of_tip["labels"]) == ("66.55", "test (oracle)", "")
        assert rows["DTD, CLIP-Adapter", "16 shots"]["paper_labels"] == "not known"
        assert rows["DTD, zero-shot CLIP", "0 shots"]["paper_labels"] == ""
        page = call(report.main, "methods_few_shot", "--output-dir", output, "--format", "html")[1]
        assert '66.55<sup title="test (oracle)">\u2021</sup>' in page

    def test_a_mark_is_explained_only_where_it_stands(self, tmp_path, call):
        write_results(tmp_path, few_shot("dtd", "CLIPAdapter", "rn50").folder, {1: 60.0})
        assert "\u2021" not in call(report.main, "methods_few_shot", "--output-dir", tmp_path)[1]


class TestOnce:
    def test_a_method_of_the_tables_has_no_row_of_its_own_beside_the_papers(self, tmp_path, report_rows):
        write_results(tmp_path, base_classes("dtd", *KGCOOP).folder, {1: 80.0}, trainer="KgCoOp")
        found = report_rows(tmp_path)
        assert {(table, row) for table, row, column in found if column == "Base"} == {
            ("methods_base_to_new", "DTD, KgCoOp"),
            ("methods_base_to_new", "Average, KgCoOp"),
        }

    def test_with_another_config_it_has_a_table_of_its_own(self, tmp_path, report_rows):
        write_results(tmp_path, base_classes("dtd", "KgCoOp", "rn50").folder, {1: 70.0})
        write_results(tmp_path, few_shot("dtd", "TaskRes", "vit_b16").folder, {1: 60.0})
        assert report_rows(tmp_path) == {
            ("own_base_to_new", "DescribableTextures, RN50, KgCoOp", "Base"): "70.0",
            ("own_few_shot", "DescribableTextures, ViT-B/16, TaskRes", "16 shots"): "60.0",
        }

    def test_ones_own_stands_beside_the_others(self, tmp_path, report_rows):
        for folder, accuracy in ((base_classes, 75.0), (new_classes, 50.0)):
            write_results(tmp_path, folder("dtd", "Mine", "vit_b16").folder, {1: accuracy})
        write_results(tmp_path, new_classes("dtd", "Mine", "vit_b16", classes="all").folder, {1: 55.0})
        write_results(tmp_path, "evaluation/Mine/vit_b16_16shots/imagenet_a", {1: 40.0})
        write_results(tmp_path, "evaluation/Mine/vit_b16_16shots/eurosat", {1: 30.0})
        found = report_rows(tmp_path, "methods")
        assert found["methods_base_to_new", "DTD, Mine", "H"] == "60.0"
        assert found["methods_base_to_new", "DTD, Mine", "All"] == "55.0"
        assert found["methods_domain_generalisation", "Mine", "Average of the four"] == "40.0"
        assert found["methods_cross_dataset", "EuroSAT", "Mine"] == "30.0"

    def test_what_only_repeats_the_papers_tables_is_shown_when_it_is_named(self, tmp_path, report_rows):
        write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0})
        assert {table for table, *_ in report_rows(tmp_path)} == {"few_shot", "context_length", "backbones"}
        assert report_rows(tmp_path, "methods_few_shot")["methods_few_shot", "DTD, CoOp", "16 shots"] == "60.0"


def test_a_table_draws_its_own_rows(tmp_path, call):
    """Not those of other settings, nor the papers' tables those of other methods."""
    for shots, accuracy in ((1, 50.0), (16, 70.0)):
        write_results(tmp_path, few_shot("shapes", "CoOp", "tiny", shots=shots).folder, {1: accuracy})
        write_results(tmp_path, coop("shapes", "tiny", position="front", shots=shots).folder, {1: accuracy})
        write_results(tmp_path, few_shot("shapes", "TipAdapterF", "tiny", shots=shots).folder, {1: accuracy})
    drawn, labels = {}, ("CoOp (M=16, end)", "CoOp (M=16, front)", "Tip-Adapter-F")
    for name in ("shapes_few_shot", "shapes_methods_few_shot"):
        page = call(report.main, name, "--output-dir", tmp_path, "--format", "html")[1]
        drawn[name] = [label for label in labels if f"<!-- {label} -->" in page]
    assert drawn == {
        "shapes_few_shot": ["CoOp (M=16, end)"],
        "shapes_methods_few_shot": ["CoOp (M=16, end)", "Tip-Adapter-F"],
    }


def test_a_config_of_imagenet_is_the_same_line_of_the_average(tmp_path):
    for dataset in ("imagenet", "dtd"):
        for shots in (2, 16):
            write_results(tmp_path, few_shot(dataset, "TaskRes", "rn50", shots=shots).folder, {1: 50.0 + shots})
    names, lines = average_lines(find_curves(tmp_path, shots=(2, 16)))
    assert names == ["dtd", "imagenet"]
    assert {method.label: line for method, line in lines.items()} == {"TaskRes": {2: (52.0, 0.0), 16: (66.0, 0.0)}}


def test_every_method_of_the_tables_is_known_as_one():
    """Else it would stand in them a second time, as a method of the user's own."""
    runs = [run for table in TABLES.values() for run in table.experiments]
    assert {run.expected["trainer"] for run in runs} <= {*TRAINERS}
