"""report.py on folders of made-up results: every format to the letter or parsed again, and every message."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from report import main
from reports.experiments import coop, linear_probe, zero_shot
from reports.render.wording import MINIATURE
from reports.tables.catalogue import TABLES
from tests.support.made_up_results import CUT_LOG, TEST_LOG, write_logs, write_results, write_words


def write_prompts(output):
    """Logs as the original's: zero-shot and CoOp on ImageNet, RN50's seed 3 cut short, ViT-B/16 with one seed."""
    write_logs(output, "ZeroshotCLIP/rn50/imagenet", "58.20", TEST_LOG)
    write_logs(output, "imagenet/CoOp/rn50_ep50_16shots/nctx16_cscFalse_ctpend", {1: "62.85", 2: "63.15"})
    write_logs(output, "imagenet/CoOp/rn50_ep50_16shots/nctx16_cscFalse_ctpend", {3: ""}, CUT_LOG)
    write_logs(output, "imagenet/CoOp/vit_b16_ep50_16shots/nctx16_cscFalse_ctpend", {1: "71.90"})


def write_miniature(output):
    write_results(output, zero_shot("shapes", "tiny").folder, 57.03)
    for shots, accuracies in ((1, {1: 60.0, 2: 64.0}), (2, {1: 65.0, 2: 65.0}), (16, {1: 69.0, 2: 71.0})):
        write_results(output, coop("shapes", "tiny", shots=shots).folder, accuracies)
        write_results(output, linear_probe("shapes", "tiny", shots=shots).folder, accuracies)


def test_text(tmp_path, call):
    write_prompts(tmp_path)
    code, out, err = call(main, "imagenet_prompts", "backbones", "bigger_coop", "--output-dir", tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"Results in {tmp_path}: mean +- population standard deviation over seeds, in percent"
    assert lines[2:4] == [
        "CoOp, Table 2: hand-made and learned prompts   [imagenet_prompts]",
        "ImageNet, 16 shots. RN101's hand-made prompt: the paper prints 61.26 here and 61.62 in its Table 1. "
        "Unequal numbers of seeds: 2, fewer where a cell says so.",
    ]
    assert lines[10:13] == [
        "Not counted: imagenet/CoOp/rn50_ep50_16shots/nctx16_cscFalse_ctpend/seed3: log.txt: "
        'no line "Finish training", so the run is not finished.',
        "9 of 12 values are missing; bash scripts/reproduce.sh imagenet_prompts makes them.",
        "Left out, as there is no result: ensemble.",
    ]
    table = [re.split(r"\s{2,}", line.strip()) for line in lines[5:9]]
    beside = ["paper", "diff."]
    assert table[0] == [x for name in ("RN50", "RN101", "ViT-B/32", "ViT-B/16") for x in (name, *beside)]
    assert table[2] == ["hand-made prompt", *"58.20 58.18 +0.02 missing 61.26 missing 62.05 missing 66.73".split()]
    assert table[3] == ["CoOp, M=16", "63.00 +- 0.15", "62.95", "+0.05", "missing", "66.60", "missing", "66.85",
                        "71.90 (1 seed)", "71.92", "-0.02"]  # fmt: skip
    assert "No result yet:" in out
    assert out.endswith("CoCoOp, Table 5: more context vectors or a Meta-Net   bash scripts/reproduce.sh bigger_coop\n")


def test_a_wide_table_has_the_paper_below_and_an_average_says_over_how_many_it_is(tmp_path, call):
    write_prompts(tmp_path)
    out = call(main, "distribution_shift", "--output-dir", tmp_path)[1]
    rows = [line.split() for line in out.splitlines()]
    assert ["RN50", "zero-shot", "CLIP", "58.20", "missing", "missing", "missing", "missing"] in rows
    assert ["paper", "58.18", "51.34", "33.32", "21.65", "56.00"] in rows
    assert ["difference", "+0.02"] in rows
    assert "Left out, as there is no result: RN101; ViT-B/32; linear probe; CoOp, M=4." in out
    out = call(main, "context_length", "--output-dir", tmp_path)[1]
    assert re.search(r"^Average +missing +missing +63\.00 \(over 1 of 11\)$", out, re.MULTILINE)


def test_words_and_numbers_end_at_one_place(tmp_path, call):
    """Behind it stands what only some cells have: a spread, a remark."""
    write_results(tmp_path, zero_shot("shapes", "tiny").folder, 57.03)
    write_results(tmp_path, coop("shapes", "tiny").folder, {1: 9.0, 2: 10.0})
    write_results(tmp_path, coop("shapes", "tiny", position="front").folder, {1: 60.0})
    write_results(tmp_path, coop("shapes", "tiny", position="end", csc=True).folder, {1: 60.0})
    lines = call(main, "shapes_variants", "--output-dir", tmp_path)[1].splitlines()
    [end] = [line for line in lines if line.startswith("end ")]
    [front] = [line for line in lines if line.startswith("front ")]
    assert end.split() == ["end", "9.50", "+-", "0.50", "60.00", "(1", "seed)"]
    assert end.index("9.50") + 4 == front.index("60.00") + 5
    assert end.index("60.00") + 5 == front.index("missing") + 7


def test_a_mostly_empty_report_leads_with_what_there_is(tmp_path, call):
    write_logs(tmp_path, coop("caltech101", "rn50_ep50", shots=1).folder, {1: "81.02"})
    lines = call(main, "--output-dir", tmp_path)[1].splitlines()
    rows = [line for line in lines if "81.02" in line]
    assert len(rows) == 2 and lines.index(rows[1]) < 12  # of Caltech101 and of the average
    table = lines[lines.index(rows[0]) : lines.index(rows[1]) + 1]
    assert len(table) == 3 and table[1] == ""  # nothing of what is missing alone
    assert any(line.startswith("310 of 312 values are missing") for line in lines[lines.index(rows[1]) :])


def test_markdown(tmp_path, call):
    write_prompts(tmp_path)
    out = call(main, "imagenet_prompts", "--output-dir", tmp_path, "--format", "markdown")[1]
    assert "## CoOp, Table 2: hand-made and learned prompts\n" in out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {13}
    assert rows[1] == [":--", *["--:"] * 12]
    assert rows[2][:5] == ["hand-made prompt", "58.20", "58.18", "+0.02", "missing"]
    assert "- Not counted: imagenet/CoOp/rn50_ep50_16shots" in out


def test_csv(tmp_path, call):
    write_prompts(tmp_path)
    out = call(main, "imagenet_prompts", "--output-dir", tmp_path, "--format", "csv")[1]
    rows = list(csv.reader(io.StringIO(out)))
    numbers = ["paper", "measured", "std", "seeds", "difference"]
    others = ["interval_low", "interval_high", "data_sets", "p", "p_holm"]
    words = ["paper_words", "measured_words", "paper_labels", "labels", "problem"]
    assert rows[0] == ["table", "row", "column", *numbers, *others, *words]
    assert len(rows) == 1 + 12
    cut = 'seed3: log.txt: no line "Finish training", so the run is not finished'
    hand_made = ["imagenet_prompts", "hand-made prompt"]
    assert rows[1] == [*hand_made, "RN50", "58.18", "58.2", "", "", "0.02", *[""] * 10]
    assert rows[2] == [*hand_made, "RN101", "61.26", *[""] * 13, "missing"]
    assert rows[9][:8] == ["imagenet_prompts", "CoOp, M=16", "RN50", "62.95", "63.0", "0.15", "2", "0.05"]
    assert rows[9][-1].endswith(cut)
    assert rows[12][2:] == ["ViT-B/16", "71.92", "71.9", "", "1", "-0.02", *[""] * 9, "1 seed"]


def test_words(tmp_path, call):
    """The paper's stand below, without a difference; in a CSV words are in columns of their own."""
    write_words(tmp_path, coop("imagenet", "rn50_ep50").folder, "cat")
    out = call(main, "nearest_words", "--output-dir", tmp_path)[1]
    assert re.search(r"^  paper +potd \(1\.7136\) +lc \(0\.6752\)$", out, re.MULTILINE)
    assert "difference" not in out
    out = call(main, "nearest_words", "--output-dir", tmp_path, "--format", "csv")[1]
    first = next(csv.DictReader(io.StringIO(out)))
    assert (first["paper"], first["measured"]) == ("", "")
    assert (first["paper_words"], first["measured_words"]) == ("potd (1.7136)", "cat (1.0000)")


def test_latex(tmp_path, call):
    write_prompts(tmp_path)
    out = call(main, "imagenet_prompts", "initialisation", "--output-dir", tmp_path, "--format", "latex")[1]
    assert r"  \begin{tabular}{lrrrrrrrrrrrr}" in out
    assert "    hand-made prompt & 58.20 & 58.18 & $+0.02$ & missing & 61.26 &  & " in out
    assert r"    CoOp, M=16 & 63.00 $\pm$ 0.15 & 62.95 & $+0.05$ & " in out and r"71.92 & $-0.02$ \\" in out
    assert r"\label{tab:imagenet_prompts}" in out
    assert "% no result yet: CoOp, Table 3: random start or words" in out
    comments = [line for line in out.splitlines() if line.startswith("% Not counted")]
    assert len(comments) == 1 and r"\_" not in comments[0]


def test_latex_escapes(tmp_path, call):
    write_words(tmp_path, coop("shapes", "tiny").folder, r"a_b%&#\$<|{")
    out = call(main, "shapes_nearest_words", "--output-dir", tmp_path, "--format", "latex")[1]
    assert r"vector 1 & a\_b\%\&\#\textbackslash{}\$\textless{}\textbar{}\{ (1.0000) \\" in out


def test_the_miniature_says_so_in_every_format(tmp_path, call):
    write_miniature(tmp_path)
    for kind in ("text", "markdown", "latex", "html"):
        out = call(main, "--output-dir", tmp_path, "--format", kind)[1]
        assert MINIATURE in out, kind
        assert not re.search(r"diff|\bpaper\b(?!')", out.split("<main>")[-1]), kind
    rows = csv.DictReader(io.StringIO(call(main, "--output-dir", tmp_path, "--format", "csv")[1]))
    assert all(row["table"].startswith("shapes_") and not row["paper"] for row in rows)


class Page(HTMLParser):
    """What a page links to, what is open at its end, and its text."""

    VOID = {"meta", "br", "link", "img", "path", "use"}

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.tags, self.words = [], set(), [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids |= {found["id"]} if "id" in found else set()
        self.links += [found["href"]] if tag == "a" else []
        self.sources += [found[key] for key in ("src", "href") if tag in ("img", "script", "link") and key in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page(tmp_path, call):
    write_prompts(tmp_path / "runs & more")
    write_miniature(tmp_path / "runs & more")
    path = tmp_path / "report.html"
    args = ("--output-dir", tmp_path / "runs & more", "--format", "html", "--out", path)
    assert call(main, *args) == (0, f"Written: {path} (tables: 10)\n", "")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.sources == [] and "<script" not in text and "@import" not in text
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert {"imagenet_prompts", "shapes_few_shot", "none"} <= page.ids
    assert "runs & more" in page.text
    assert "63.00 ± 0.15 62.95 +0.05" in page.text and "71.90 1 seed 71.92 −0.02" in page.text
    assert "so the run is not finished" in page.text
    assert page.text.count("miniature") >= 3
    assert page.tags.count("svg") == 1  # one point is no curve, so the few-shot table of ImageNet has none


def test_a_page_has_a_line_for_each_mark(tmp_path, call):
    """So that a table with many of them is no wider."""
    for seed, dataset in enumerate(("dtd", "eurosat", "food101"), start=1):
        write_results(tmp_path, coop(dataset, "rn50").folder, dict.fromkeys(range(seed), 60.0))
    out = call(main, "context_length", "--output-dir", tmp_path, "--format", "html")[1]
    assert '<div><span class="mark">1-3 seeds</span></div><div><span class="mark">over 3 of 11</span></div></td>' in out
    rows = csv.DictReader(io.StringIO(call(main, "context_length", "--output-dir", tmp_path, "--format", "csv")[1]))
    assert [row["problem"] for row in rows][2] == "1-3 seeds; over 3 of 11"


def test_everything_is_reported_unless_named(tmp_path, call):
    write_prompts(tmp_path)
    write_miniature(tmp_path)
    names = re.findall(r"\[(\w+)\]$", call(main, "--output-dir", tmp_path)[1], re.MULTILINE)
    coop = ["few_shot", "distribution_shift", "imagenet_prompts", "context_length", "backbones"]
    shapes = ["shapes_few_shot", "shapes_variants", "shapes_shift", "shapes_prompts", "shapes_all_classes"]
    assert names == [*coop, *shapes]
    names = re.findall(r"\[(\w+)\]$", call(main, "shapes", "--output-dir", tmp_path)[1], re.MULTILINE)
    assert names == shapes


def test_no_result_but_broken_ones(tmp_path, call):
    folder = coop("shapes", "tiny").folder
    write_logs(tmp_path, folder, {1: ""}, CUT_LOG)
    (tmp_path / folder / "seed2").mkdir()
    code, _, err = call(main, "shapes_prompts", "shapes_shift", "--output-dir", tmp_path)
    assert code == 1
    assert err.splitlines()[1:] == [
        f'  {folder}/seed1: log.txt: no line "Finish training", so the run is not finished',
        f"  {folder}/seed2: it has neither log.txt nor results.json",
    ]


@pytest.mark.parametrize(
    "words, start, end",
    [
        ("few_shots", "There is no table 'few_shots'. Tables and groups of them: coop, ", ". Did you mean few_shot?"),
        (
            "few_shot --output-dir {}/runs",
            "--output-dir {}/runs does not exist (the part that does: {}). ",
            "Check the spelling, or run bash scripts/reproduce.sh few_shot first.",
        ),
        ("backbones", "{} holds no finished run of backbones.", " Run bash scripts/reproduce.sh backbones first."),
        ("", f"{{}} holds no finished run of {', '.join(TABLES)}.", " Run bash scripts/reproduce.sh shapes first."),
        ("--out {}/a/b.txt", "--out is {}/a/b.txt, but the folder {}/a does not exist. Make it first.", ""),
    ],
    ids=["table", "folder", "result", "any result", "out"],
)
def test_what_is_not_there(tmp_path, call, words, start, end):
    words, start, end = (text.replace("{}", str(tmp_path)) for text in (words, start, end))
    code, out, error = call(main, "--output-dir", tmp_path, *words.split())
    assert (code, out) == (1, "")
    assert error.startswith("Error: " + start) and error.endswith(end + "\n")
