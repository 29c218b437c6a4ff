"""The tables' measured values against numbers worked out by hand, and the papers' numbers against each other."""

import json
import shutil
import statistics

import pytest

from reports.experiments import DATASETS, base_classes, coop, new_classes, zero_shot
from reports.tables.catalogue import GROUPS, TABLES, select
from reports.tables.cells import Average, Cost, PeakMemory, Result
from reports.tables.coop import PAPER
from reports.tables.table import fill
from tests.support.made_up_results import LOG, TEST_LOG, write_logs, write_results

COCOOP = "vit_b16_c4_ep10_batch1_ctxv1"


def cells(name, output):
    """(row, column) -> the filled-in cell."""
    return {(cell.row.name, cell.column): cell for cell in fill(TABLES[name], output).cells()}


def value(name, output, row, column):
    return cells(name, output)[row, column].value


def write_cocoop(output, dataset, base, new):
    write_results(output, base_classes(dataset, "CoCoOp", COCOOP).folder, base)
    write_results(output, new_classes(dataset, "CoCoOp", COCOOP).folder, new)


def test_the_mean_and_its_spread_are_over_seeds(tmp_path):
    write_logs(tmp_path, "caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend", {1: "91.81", 2: "92.01", 3: "92.17"})
    cell = cells("few_shot", tmp_path)["Caltech101, CoOp, end", "16 shots"]
    # (91.81 + 92.01 + 92.17) / 3 = 91.996667; sqrt((0.186667^2 + 0.013333^2 + 0.173333^2) / 3) = 0.147271
    assert cell.value.value == pytest.approx(91.996667, abs=1e-6)
    assert cell.value.std == pytest.approx(0.147271, abs=1e-6)
    assert cell.value.n_seeds == (3, 3)
    assert (cell.cell.paper, cell.difference) == (92.00, 0.0)  # as printed: 92.00 and 92.00


def test_nothing_is_filled_in(tmp_path):
    for table in select(GROUPS):
        filled = fill(table, tmp_path)
        assert filled.n_found == 0 and not filled.problems and not filled.blocks
        assert all(cell.difference is None for cell in filled.cells())


def test_h_is_of_the_means_over_seeds(tmp_path):
    write_cocoop(tmp_path, "dtd", {1: 80.0, 2: 70.0}, {1: 40.0, 2: 60.0})
    write_cocoop(tmp_path, "eurosat", {1: 0.0}, {1: 0.0})
    assert value("base_to_new", tmp_path, "EuroSAT, CoCoOp", "H").value == 0.0
    found = value("base_to_new", tmp_path, "DTD, CoCoOp", "H")
    assert found.value == pytest.approx(60.0)  # 2 * 75 * 50 / 125; the mean of the seeds' H would be 58.97
    assert found.std is None and found.n_seeds == (2, 2)


def test_h_of_the_average_is_of_the_averaged_columns(tmp_path):
    for i, dataset in enumerate(DATASETS):  # base 50 or 70, new 90 or 30
        write_cocoop(tmp_path, dataset, {1: 70.0 if i else 50.0}, {1: 30.0 if i else 90.0})
    filled = cells("base_to_new", tmp_path)
    base, new, h = (filled["Average, CoCoOp", column].value for column in ("Base", "New", "H"))
    assert base.value == pytest.approx((50 + 10 * 70) / 11)  # 68.1818
    assert new.value == pytest.approx((90 + 10 * 30) / 11)  # 35.4545
    assert h.value == pytest.approx(2 * 750 * 390 / (11 * 1140))  # 46.65
    mean_of_h = statistics.fmean([2 * 50 * 90 / 140] + [2 * 70 * 30 / 100] * 10)
    assert abs(h.value - mean_of_h) > 2  # 44.03: what it must not be
    assert filled["Average, CoCoOp", "H"].difference == pytest.approx(46.65 - 75.83)
    assert filled["Average, CoCoOp", "Base"].cell.paper == 80.47


def test_both_ways_to_average_h_are_shown(tmp_path):
    """On the papers' rows of each data set: Table 1 prints the first of each pair, the second is 0.4 to 0.8 lower."""
    for heading, numbers in PAPER["base_to_new"]["per_dataset"].items():
        [dataset] = [name for name, shown in DATASETS.items() if shown == heading]
        write_cocoop(tmp_path, dataset, *({1: number} for number in numbers["CoCoOp"][:2]))
        cfg = "vit_b16_ep50_ctxv1" if dataset == "imagenet" else "vit_b16_ctxv1"
        write_results(tmp_path, base_classes(dataset, "CoOp", cfg).folder, {1: numbers["CoOp"][0]})
        write_results(tmp_path, new_classes(dataset, "CoOp", cfg).folder, {1: numbers["CoOp"][1]})
    filled = cells("base_to_new", tmp_path)
    for method, of_averages, average in (("CoOp", 71.66, 70.83), ("CoCoOp", 75.83, 75.43)):
        assert filled[f"Average, {method}", "H"].value.value == pytest.approx(of_averages, abs=0.0101)
        assert filled[f"Average of H, {method}", "H"].value.value == pytest.approx(average, abs=0.0051)
    assert filled["Average of H, zero-shot CLIP", "H"].value.value is None
    assert ("Average of H, CoOp", "Base") not in filled


def test_an_average_of_h_that_is_not_whole_says_so(tmp_path):
    write_cocoop(tmp_path, "dtd", {1: 80.0}, {1: 40.0})
    found = value("base_to_new", tmp_path, "Average of H, CoCoOp", "H")
    assert found.value == pytest.approx(2 * 80 * 40 / 120) and (sum(found.parts), len(found.parts)) == (1, 11)


def test_an_average_that_is_not_whole_says_so_and_is_not_compared(tmp_path):
    write_cocoop(tmp_path, "dtd", {1: 80.0}, {1: 40.0})
    write_cocoop(tmp_path, "eurosat", {1: 60.0}, {1: 60.0})
    filled = cells("base_to_new", tmp_path)
    base, h = filled["Average, CoCoOp", "Base"], filled["Average, CoCoOp", "H"]
    assert base.value.value == 70.0 and base.value.is_partial and sum(base.value.parts) == 2
    assert h.value.value == pytest.approx(2 * 70 * 50 / 120) and h.value.is_partial
    assert base.difference is None and h.difference is None


def test_the_spread_of_an_average_is_that_of_the_seeds_averages(tmp_path):
    for i, dataset in enumerate(DATASETS):
        write_cocoop(tmp_path, dataset, {1: 50.0 + i, 2: 54.0 + i}, {1: 55.0 + i, 2: 65.0 - i})
    filled = cells("base_to_new", tmp_path)
    base, new = (filled["Average, CoCoOp", column].value for column in ("Base", "New"))
    assert (base.value, base.std) == (57.0, 2.0)  # seed 1: 55, seed 2: 59
    assert (new.value, new.std) == (60.0, 0.0)  # both 60, though the data sets' spreads are up to 5
    write_cocoop(tmp_path, "dtd", {3: 90.0}, {})
    base, new = (value("base_to_new", tmp_path, "Average, CoCoOp", column) for column in ("Base", "New"))
    assert (base.std, base.n_seeds, new.std) == (None, (2, 3), 0.0)  # not all data sets have the same seeds


def test_h_needs_averages_over_the_same_data_sets(tmp_path):
    write_cocoop(tmp_path, "dtd", {1: 80.0}, {1: 40.0})
    write_results(tmp_path, base_classes("eurosat", "CoCoOp", COCOOP).folder, {1: 60.0})
    found = value("base_to_new", tmp_path, "Average, CoCoOp", "H")
    assert found.value is None
    assert found.problems == ("H of an average: base and new are there for different data sets",)


def test_unequal_numbers_of_seeds_are_kept_apart(tmp_path):
    write_cocoop(tmp_path, "dtd", {1: 80.0, 2: 80.0, 3: 80.0}, {1: 40.0})
    filled = fill(TABLES["base_to_new"], tmp_path)
    found = {(cell.row.name, cell.column): cell for cell in filled.cells()}
    base, new, h = (found["DTD, CoCoOp", column] for column in ("Base", "New", "H"))
    assert filled.n_seeds == (1, 3)
    assert (base.value.n_seeds, new.value.n_seeds, h.value.n_seeds) == ((3, 3), (1, 1), (1, 3))
    assert [filled.is_short_of_seeds(cell) for cell in (base, new, h)] == [False, True, True]


def test_zero_shot_is_one_run(tmp_path):
    write_logs(tmp_path, zero_shot("shapes", "tiny").folder, "57.03", TEST_LOG)
    found = value("shapes_few_shot", tmp_path, "zero-shot CLIP", "0 shots")
    assert (found.value, found.std, found.n_seeds) == (57.03, None, None)
    write_results(tmp_path, coop("shapes", "tiny").folder, {2: 70.5})  # one seed has no spread
    found = value("shapes_prompts", tmp_path, "CoOp, M=16", "Shapes")
    assert (found.value, found.std, found.n_seeds) == (70.5, None, (1, 1))


def test_a_test_log_needs_no_end_of_training(tmp_path):
    write_logs(tmp_path, "evaluation/CoOp/tiny_16shots/nctx4_cscFalse_ctpend/shapes_v2", {1: "40.0"}, TEST_LOG)
    write_logs(tmp_path, coop("shapes", "tiny", n_ctx=4).folder, {1: "60.0"}, TEST_LOG)
    assert value("shapes_shift", tmp_path, "CoOp, M=4", "ShapesV2").value == 40.0
    assert value("shapes_shift", tmp_path, "CoOp, M=4", "Shapes").value is None


def test_each_protocol_is_read_from_its_own_folder(tmp_path):
    """xd_train's run is not main's, though both train CoOp on ImageNet."""
    cfg = "imagenet/CoOp/vit_b16_ep50_ctxv1_16shots"
    write_logs(tmp_path, cfg, {2: "71.40", 10: "71.60"}, LOG)
    write_logs(tmp_path, f"{cfg}/nctx4_cscFalse_ctpend", {1: "60.0"}, LOG)
    write_logs(tmp_path, "evaluation/CoOp/vit_b16_ep50_ctxv1_16shots/dtd", {1: "42.92"}, TEST_LOG)
    filled = cells("cross_dataset", tmp_path)
    assert filled["ImageNet", "CoOp"].value.value == pytest.approx(71.50)
    assert filled["ImageNet", "CoOp"].difference == -0.01
    assert filled["DTD", "CoOp"].difference == 1.0
    assert filled["Average of the ten", "CoOp"].value.value == 42.92
    assert filled["Average of the ten", "CoOp"].value.parts.count(True) == 1
    assert len(filled["Average of the ten", "CoOp"].value.parts) == 10


def test_parameters_are_counts(tmp_path):
    folder = base_classes("imagenet", "CoCoOp", COCOOP).folder
    write_results(tmp_path, folder, {1: 76.0, 2: 76.0}, n_params=35360)
    cell = cells("bigger_coop", tmp_path)["CoOp, M=4 + Meta-Net", "Parameters"]
    assert (cell.value.value, cell.value.std, cell.cell.paper, cell.difference) == (35360, None, 34816, 544)
    assert isinstance(cell.value.value, int)
    shutil.rmtree(tmp_path / folder)
    write_logs(tmp_path, folder, {1: "76.00"})  # a log has no number of parameters and still counts
    filled = cells("bigger_coop", tmp_path)
    assert filled["CoOp, M=4 + Meta-Net", "Parameters"].value.value is None
    assert filled["CoOp, M=4 + Meta-Net", "Base"].value.value == 76.0
    assert fill(TABLES["bigger_coop"], tmp_path).problems == []


def test_costs_are_means_over_seeds_without_a_spread(tmp_path):
    experiment = coop("dtd", "rn50")
    for seed, (seconds, on_gpu) in enumerate(((10.5, 2.0), (20.0, 4.0)), start=1):
        cost = {"training_s": seconds, "testing_s": 1.0, "peak_memory_gb": 9.0, "peak_gpu_memory_gb": on_gpu}
        write_results(tmp_path, experiment.folder, {seed: 60.0 + 20 * seed}, cost=cost)
    time, memory = (cell(experiment).measure(tmp_path) for cell in (Cost, PeakMemory))
    assert (time.value, time.std, time.n_seeds, memory.value, memory.warnings) == (15.25, None, (2, 2), 3.0, ())
    assert Average((Cost(experiment), Cost(coop("eurosat", "rn50")))).measure(tmp_path).value == 15.25
    assert not Average((Cost(experiment),)).is_accuracy and Result(experiment).is_accuracy


def test_a_processor_has_the_memory_of_the_process(tmp_path):
    experiment = zero_shot("dtd", "rn50")
    cost = {"training_s": None, "testing_s": 1.5, "peak_memory_gb": 1.25, "peak_gpu_memory_gb": None}
    write_results(tmp_path, experiment.folder, 40.0, cost=cost)
    assert PeakMemory(experiment).measure(tmp_path).value == 1.25
    assert Cost(experiment, keyword="testing_s").measure(tmp_path).value == 1.5
    assert Cost(experiment).measure(tmp_path).value is None  # nothing was trained
    write_logs(tmp_path, coop("dtd", "rn50").folder, {1: "60.0"})
    found = PeakMemory(coop("dtd", "rn50")).measure(tmp_path)  # a log does not say it, and its accuracy counts
    assert (found.value, found.problems) == (None, ())


def test_nearest_words_are_read_as_interpret_prompt_writes_them(tmp_path):
    run = tmp_path / "food101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed2"
    run.mkdir(parents=True)
    words = [[{"word": "lc", "token": 7, "distance": 0.67519}, {"word": "x", "token": 8, "distance": 1.0}], []]
    vectors = [{"vector": vector, "words": found} for vector, found in enumerate(words, start=1)]
    (run / "nearest_words.json").write_text(json.dumps({"backbone": "RN50", "vectors": vectors}))
    filled = cells("nearest_words", tmp_path)
    first, second, third = (filled[f"vector {vector}", "Food101"] for vector in (1, 2, 3))
    assert (first.value.value, first.cell.paper, first.difference) == ("lc (0.6752)", "lc (0.6752)", None)
    assert second.value.value is None and "no nearest word of vector 2 (IndexError" in second.value.problems[0]
    assert "no nearest word of vector 3 (KeyError" in third.value.problems[0]
    (run / "nearest_words.json").write_text("[]")
    [problem] = value("nearest_words", tmp_path, "vector 1", "Food101").problems
    assert problem.startswith("food101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed2/nearest_words.json: no nearest")


def test_every_row_has_a_cell_for_every_column():
    for table in TABLES.values():
        assert table.rows and {len(row.cells) for row in table.rows} == {len(table.columns)}, table.name
        assert len({row.name for row in table.rows}) == len(table.rows), table.name


def test_the_miniature_has_no_paper():
    miniature = select(["shapes"])
    assert len(miniature) == 9 and all(table.title.startswith("Miniature: ") for table in miniature)
    miniature += select(["shapes_methods"])
    assert all(cell.paper is None for table in miniature for row in table.rows for cell in row.cells if cell)
    others = [experiment for table in select(["coop", "cocoop", "methods"]) for experiment in table.experiments]
    assert not any("shapes" in experiment.folder or "tiny" in experiment.folder for experiment in others)


def papers(name):
    return {
        (row.name, column): cell.paper
        for row in TABLES[name].rows
        for column, cell in zip(TABLES[name].columns, row.cells)
        if cell
    }


def test_papers_numbers_stand_where_they_belong():
    assert papers("distribution_shift")["RN101, CoOp, M=4", "ImageNetR"] == 64.98
    assert papers("imagenet_prompts")["ensemble", "ViT-B/32"] == 63.71
    assert papers("initialisation")["Average", "Random"] == 72.65
    assert papers("initialisation")["DTD", "Random"] is None
    assert papers("base_to_new")["Average, zero-shot CLIP", "H"] == 71.70
    assert papers("base_to_new")["EuroSAT, CoOp", "New"] == 54.74
    assert papers("cross_dataset")["UCF101", "CoCoOp"] == 68.21
    assert papers("cross_dataset")["Average of the ten", "CoOp"] == 63.88
    assert papers("domain_generalisation")["CoCoOp", "ImageNetA"] == 50.63
    assert papers("bigger_coop")["CoOp, M=60", "New"] == 65.34
    assert papers("nearest_words")["vector 2", "ImageNet"] == "that (1.4015)"


def test_papers_base_to_new_agrees_with_itself():
    """Rounded numbers: H from rounded accuracies, and averages of rounded ones, are off by up to 0.01."""
    per_dataset, average = PAPER["base_to_new"]["per_dataset"], PAPER["base_to_new"]["average"]
    for methods in (*per_dataset.values(), average):
        for base, new, h in methods.values():
            assert h == pytest.approx(2 * base * new / (base + new), abs=0.0101)
    for method, (base, new, _) in average.items():
        assert base == pytest.approx(statistics.fmean(m[method][0] for m in per_dataset.values()), abs=0.0101)
        assert new == pytest.approx(statistics.fmean(m[method][1] for m in per_dataset.values()), abs=0.0101)


def test_papers_other_tables_agree_with_each_other():
    for numbers in (PAPER["cross_dataset"]["CoOp"], PAPER["cross_dataset"]["CoCoOp"]):
        assert numbers[-1] == pytest.approx(statistics.fmean(numbers[1:-1]), abs=0.0101)
    imagenet = PAPER["base_to_new"]["per_dataset"]["ImageNet"]
    assert PAPER["bigger_coop"]["CoOp, M=4"][1:] == imagenet["CoOp"]
    assert PAPER["bigger_coop"]["CoOp, M=4 + Meta-Net"][1:] == imagenet["CoCoOp"]
    shift, general = PAPER["distribution_shift"], PAPER["domain_generalisation"]
    assert general["zero-shot CLIP"] == shift["ViT-B/16"]["zero-shot CLIP"]
    for method in ("CoOp", "CoCoOp"):
        assert general[method][0] == PAPER["cross_dataset"][method][0]
    backbones = PAPER["imagenet_prompts"]["columns"]
    learned = [shift[backbone]["CoOp, M=16"][0] for backbone in backbones]
    assert PAPER["imagenet_prompts"]["CoOp, M=16"] == learned


@pytest.mark.parametrize("name", ["distribution_shift", "imagenet_prompts", "domain_generalisation"])
def test_columns_are_in_the_papers_order(name):
    assert list(TABLES[name].columns) == PAPER[name]["columns"]


def test_data_sets_are_in_the_papers_order():
    assert [*DATASETS.values(), "average"] == PAPER["cross_dataset"]["columns"]
    assert list(PAPER["base_to_new"]["per_dataset"]) == list(DATASETS.values())
