"""report.py --ci and --baseline on made-up results: what is paired, over which data sets, and what is said of it."""

import csv
import io
import re
import statistics

import pytest
from scipy.stats import wilcoxon

import report
from reports.experiments import (
    DATASETS,
    SHIFTED,
    base_classes,
    coop,
    few_shot,
    linear_probe,
    new_classes,
    transfer,
    transfer_source,
    zero_shot,
)
from reports.tables.coop import PAPER
from tests.support.made_up_results import write_results

COCOOP = "CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1"
NUMBERS = PAPER["base_to_new"]["per_dataset"]
NAMES = {heading: name for name, heading in DATASETS.items()}
NO_P = "No p from fewer than 6 data sets with a difference: even if all 5 agree, it is 0.0625, above 0.05."  # 2 / 2^5


def coop_cfg(dataset):
    return "CoOp", "vit_b16_ep50_ctxv1" if dataset == "imagenet" else "vit_b16_ctxv1"


def write_papers(output, *, half=1.0, without=()):
    """The papers' base and new accuracies; seeds 1 and 2 half a point or so below and above them."""
    for heading, numbers in NUMBERS.items():
        dataset = NAMES[heading]
        for classes, i in (("base", 0), ("new", 1)):
            clip = zero_shot(dataset, "vit_b16", classes=classes)
            write_results(output, clip.folder, numbers["zero-shot CLIP"][i])
            for method in (coop_cfg(dataset), COCOOP):
                experiment = (base_classes, new_classes)[i](dataset, *method)
                number = numbers[method[0]][i]
                if (method[0], heading) not in without:
                    write_results(output, experiment.folder, {1: number - half, 2: number + half})


@pytest.fixture
def compared(call):
    """compared(output, *words) -> {(method, column): line of the CSV} of the comparisons, and the notes."""

    def compared(output, *words):
        code, out, err = call(report.main, *words, "--output-dir", output, "--format", "csv")
        assert code == 0, err
        rows = list(csv.DictReader(io.StringIO(out)))
        found = {(m[1], row["column"]): row for row in rows if (m := re.fullmatch("(.+) minus .+", row["row"]))}
        return found, [row["problem"] for row in rows if not row["row"]]

    return compared


def test_pairs_are_data_sets_with_their_seeds_averaged(tmp_path, compared):
    write_papers(tmp_path)
    found, notes = compared(tmp_path, "base_to_new", "--baseline", "CoOp")
    assert {method for method, _ in found} == {"zero-shot CLIP", "CoCoOp"}
    for column, i in (("Base", 0), ("New", 1)):
        p = {}
        for method in ("zero-shot CLIP", "CoCoOp"):
            pairs = [(numbers[method][i], numbers["CoOp"][i]) for numbers in NUMBERS.values()]
            line = found[method, column]
            assert float(line["measured"]) == pytest.approx(statistics.fmean(a - b for a, b in pairs), abs=6e-5)
            p[method] = wilcoxon(*zip(*pairs)).pvalue
            assert (line["data_sets"], float(line["p"])) == ("11", pytest.approx(p[method]))
        first, second = sorted(p, key=p.get)
        holm = {first: min(1, 2 * p[first]), second: max(2 * p[first], p[second])}
        for method, corrected in holm.items():
            assert float(found[method, column]["p_holm"]) == pytest.approx(corrected)
    assert float(found["CoCoOp", "H"]["measured"]) == pytest.approx(75.43 - 70.83, abs=0.02)  # averages of H
    assert "Some comparisons rest on as few as 2 seeds: other seeds may say otherwise." in notes
    assert "Against CoOp: the mean difference in points over 11 data sets, the seeds of each averaged first." in notes


def test_a_data_set_that_one_of_them_lacks_is_left_out(tmp_path, compared):
    write_papers(tmp_path, without=[("CoCoOp", "DTD")])
    found, _ = compared(tmp_path, "base_to_new", "--baseline", "CoOp")
    assert (found["CoCoOp", "Base"]["data_sets"], found["zero-shot CLIP", "Base"]["data_sets"]) == ("10", "11")


def test_comparisons_in_every_format(tmp_path, call):
    write_papers(tmp_path, without=[("CoCoOp", "DTD")])
    out = {
        kind: call(report.main, "base_to_new", "--baseline", "CoOp", "--output-dir", tmp_path, "--format", kind)[1]
        for kind in ("text", "markdown", "latex", "html")
    }
    pairs = [(numbers["CoCoOp"][0], numbers["CoOp"][0]) for heading, numbers in NUMBERS.items() if heading != "DTD"]
    difference, p = statistics.fmean(a - b for a, b in pairs), wilcoxon(*zip(*pairs)).pvalue
    signed, some, p = f"{difference:+.2f}", "(10 of 11)", f"{p:.4f}"
    heads = r"against CoOp +Base +p +p \(Holm\) +New +p +p \(Holm\) +H +p +p \(Holm\)"
    assert re.search(rf"^{heads}\n(.+\n)?CoCoOp +{re.escape(signed)} \(10 of 11\) +{p} ", out["text"], re.MULTILINE)
    assert f"| CoCoOp | {signed} {some} | {p} | " in out["markdown"]
    assert f"CoCoOp & ${signed}$ {some} & {p} & " in out["latex"]
    assert out["latex"].count(r"\begin{tabular}") == 2 and out["latex"].count(r"\footnotesize Against CoOp") == 1
    assert f"<th scope=row>CoCoOp</th><td>{signed.replace('-', '&minus;')} {some}</td><td>{p}</td>" in out["html"]
    for text in out.values():
        assert "the mean difference in points over data sets with both, the seeds of each averaged first." in text
        assert "two-sided Wilcoxon signed-rank test" in text


def test_a_difference_of_oracle_numbers_is_marked_in_every_format(tmp_path, call):
    for dataset in ("dtd", "eurosat"):
        write_results(tmp_path, coop(dataset, "rn50", n_ctx=4).folder, {1: 60.0})
        write_results(tmp_path, coop(dataset, "rn50", n_ctx=8).folder, {1: 61.0})
        selection = {"epoch": "test (oracle)" if dataset == "dtd" else "none", "hyperparameters": "none"}
        write_results(tmp_path, coop(dataset, "rn50").folder, {1: 63.0}, selection=selection)
    words = "context_length", "--baseline", "M=4", "--output-dir", tmp_path, "--format"
    out = {kind: call(report.main, *words, kind)[1] for kind in ("text", "markdown", "latex", "html", "csv")}
    assert re.search(r"^M=8 +\+1\.00 \(2 of 11\)\nM=16 +\+3\.00‡ \(2 of 11\)$", out["text"], re.MULTILINE)
    assert "| M=8 | +1.00 (2 of 11) |\n| M=16 | +3.00‡ (2 of 11) |" in out["markdown"]
    assert r"M=16 & $+3.00$$^{\ddagger}$ (2 of 11) \\" in out["latex"]
    assert "<th scope=row>M=16</th><td>+3.00<sup>‡</sup> (2 of 11)</td>" in out["html"]
    labels = {row["row"]: row["labels"] for row in csv.DictReader(io.StringIO(out["csv"])) if "minus" in row["row"]}
    assert labels == {"M=8 minus M=4": "", "M=16 minus M=4": "test (oracle)"}


def test_too_few_data_sets_have_no_p(tmp_path, compared):
    for i, dataset in enumerate(("dtd", "eurosat", "food101", "sun397", "ucf101")):
        write_results(tmp_path, coop(dataset, "rn50", n_ctx=4).folder, {1: 60.0 + i})
        write_results(tmp_path, coop(dataset, "rn50").folder, {1: 61.0 + 2 * i})
    found, notes = compared(tmp_path, "context_length", "--baseline", "M=4")
    assert found.keys() == {("M=16", "")}  # nobody ran M=8
    line = found["M=16", ""]
    assert (line["measured"], line["data_sets"], line["p"], line["p_holm"]) == ("3.0", "5", "", "")
    assert NO_P in notes
    write_results(tmp_path, coop("caltech101", "rn50", n_ctx=4).folder, {1: 60.0})
    write_results(tmp_path, coop("caltech101", "rn50").folder, {1: 69.0})
    found, notes = compared(tmp_path, "context_length", "--baseline", "M=4")
    assert (found["M=16", ""]["p"], NO_P in notes) == ("0.03125", False)  # 2 / 64


def test_zero_shot_clip_is_compared_at_every_number_of_shots(tmp_path, compared):
    for dataset in DATASETS:
        write_results(tmp_path, zero_shot(dataset, "rn50").folder, 50.0)
        for shots in (1, 16):
            write_results(tmp_path, linear_probe(dataset, "rn50", shots=shots).folder, {1: 50.0 + shots})
    found, _ = compared(tmp_path, "few_shot", "--baseline", "zero-shot CLIP")
    assert {key: line["measured"] for key, line in found.items()} == {
        ("linear probe", "1 shot"): "1.0",
        ("linear probe", "16 shots"): "16.0",
    }
    found, _ = compared(tmp_path, "few_shot", "--baseline", "linear probe")
    assert {key: line["measured"] for key, line in found.items()} == {
        ("zero-shot CLIP", "1 shot"): "-1.0",
        ("zero-shot CLIP", "16 shots"): "-16.0",
    }


def test_the_methods_stand_in_the_order_of_the_table(tmp_path, call):
    """Also one that has no result under the first heading."""
    for trainer, shots in (("TaskRes", 1), ("TaskRes", 16), ("CLIPAdapter", 16), ("GDA", 1), ("GDA", 16)):
        write_results(tmp_path, few_shot("dtd", trainer, "rn50", shots=shots).folder, {1: 50.0 + shots})
    out = call(report.main, "methods_few_shot", "--baseline", "TaskRes", "--output-dir", tmp_path)[1]
    assert re.search(r"^against TaskRes .*\nCLIP-Adapter .*\nGDA ", out, re.MULTILINE)


def test_the_data_set_learned_on_is_not_compared(tmp_path, compared):
    """ImageNet's difference of -40 would turn the mean."""
    for method, accuracy in ((coop_cfg("imagenet"), 70.0), (COCOOP, 30.0)):
        write_results(tmp_path, transfer_source(*method, source="imagenet").folder, {1: accuracy})
        for dataset in [*DATASETS][1:]:
            folder = transfer(dataset, *method, source="imagenet").folder
            write_results(tmp_path, folder, {1: 60.0 + (method == COCOOP)})
        for dataset in SHIFTED:
            write_results(
                tmp_path, transfer(dataset, *method, source="imagenet").folder, {1: 60.0 + (method == COCOOP)}
            )
    found, notes = compared(tmp_path, "cross_dataset", "--baseline", "CoOp")
    assert (found["CoCoOp", ""]["measured"], found["CoCoOp", ""]["data_sets"]) == ("1.0", "10")
    found, notes = compared(tmp_path, "domain_generalisation", "--baseline", "CoOp")
    assert (found["CoCoOp", ""]["measured"], found["CoCoOp", ""]["data_sets"]) == ("1.0", "4")
    assert "The data set learned on is not among those compared." in notes


def test_a_baseline_that_is_not_there(tmp_path, call):
    write_papers(tmp_path)
    code, _, error = call(report.main, "base_to_new", "--baseline", "CoCoop", "--output-dir", tmp_path)
    assert code == 1
    assert error == (
        "Error: --baseline is 'CoCoop'; the methods here are zero-shot CLIP, CoOp, CoCoOp. Did you mean CoCoOp?\n"
    )


def test_a_table_without_the_baseline_stands_as_it_is(tmp_path, call):
    write_papers(tmp_path)
    write_results(tmp_path, coop("dtd", "rn50", n_ctx=4).folder, {1: 60.0})
    out = call(report.main, "context_length", "base_to_new", "--baseline", "CoCoOp", "--output-dir", tmp_path)[1]
    assert out.count("against CoCoOp") == 1 and "[context_length]" in out and "[base_to_new]" in out


def test_intervals(tmp_path, call):
    """t_{0.975, 2} = 4.303 of a textbook times s / sqrt(3): seeds 60, 61, 62 have s = 1, so 2.48."""
    write_results(tmp_path, coop("dtd", "rn50").folder, {1: 60.0, 2: 61.0, 3: 62.0})
    write_results(tmp_path, coop("dtd", "rn50", n_ctx=4).folder, {1: 50.0})
    out = {
        kind: call(report.main, "context_length", "--ci", "--output-dir", tmp_path, "--format", kind)[1]
        for kind in ("text", "markdown", "latex", "html", "csv")
    }
    assert re.search(
        r"^DTD +50\.00 \(1 seed\) +missing +61\.00 \+- 0\.82 \[58\.52, 63\.48\]$", out["text"], re.MULTILINE
    )
    assert "| 61.00 +- 0.82 [58.52, 63.48] |" in out["markdown"]
    assert r"& 61.00 $\pm$ 0.82 [58.52, 63.48] \\" in out["latex"]
    assert '<b>61.00</b> <span class="beside"><span class="std">&plusmn; 0.82</span></span>' in out["html"]
    assert '<div class="std">[58.52, 63.48]</div>' in out["html"]
    [line] = [row for row in csv.DictReader(io.StringIO(out["csv"])) if (row["row"], row["column"]) == ("DTD", "M=16")]
    assert (line["std"], line["interval_low"], line["interval_high"]) == ("0.8165", "58.5159", "63.4841")
    for text in out.values():
        assert "There is no interval for a single seed or averages whose data sets have unequal seeds." in text
        assert "Some intervals rest on as few as 3 seeds: other seeds may say otherwise." in text
    assert "[58.52" not in call(report.main, "context_length", "--output-dir", tmp_path)[1]


def test_the_interval_of_an_average_is_that_of_the_seeds_averages(tmp_path, call):
    """Six data sets rise by 1 with each seed, five fall: s = 1.5811 / 11 of the averages, t_{0.975, 4} = 2.776."""
    for i, dataset in enumerate(DATASETS):
        accuracies = {seed: 59.0 + seed if i % 2 == 0 else 65.0 - seed for seed in range(1, 6)}
        write_results(tmp_path, coop(dataset, "rn50" if i else "rn50_ep50").folder, accuracies)
    out = call(report.main, "context_length", "--ci", "--output-dir", tmp_path)[1]
    assert re.search(r"^Average .+ 62\.00 \+- 0\.13 \[61\.82, 62\.18\]$", out, re.MULTILINE)
    assert "other seeds may say otherwise" not in out


def test_h_has_no_interval_and_it_is_said(tmp_path, call):
    write_papers(tmp_path)
    out = call(report.main, "base_to_new", "--ci", "--output-dir", tmp_path)[1]
    assert "There is no interval for H." in out
