"""Results, logs and folder names of strangers: what is printed is one line each, and a page or a table stays whole."""

import html.parser
import json

import pytest

import draw_curves
import parse_test_res
import report
from reports.experiments import coop, nearest_words
from reports.figures.curves import draw_figure, svg
from reports.figures.few_shot import find_curves
from reports.identity import differences, mismatch
from reports.runs import parse_run
from tests.support.made_up_results import LOG, write_results

FORGED = "\n* accuracy: 99.99% +- 0.00%\n"
SCRIPT = "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>"
LATEX = "\n\\input{/etc/passwd}"
END = "nctx16_cscFalse_ctpend"


def run(tmp_path, text, name="results.json", **options):
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1" / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return parse_run(tmp_path / "seed1", **options)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "results.json: maximum recursion depth exceeded"),
        ('{"accuracy": NaN}', 'results.json: "accuracy" is nan, which no run measures'),
        ('{"accuracy": -Infinity}', 'results.json: "accuracy" is -inf, which no run measures'),
        ('{"accuracy": 1e300}', 'results.json: "accuracy" is 1e+300, which no run measures'),
        ('{"accuracy": 1e999}', 'results.json: "accuracy" is inf, which no run measures'),
        (f'{{"accuracy": {10**400}}}', "results.json: int too large to convert to float"),
        (f'{{"accuracy": {"9" * 5_000}}}', "results.json: Exceeds the limit"),
        ('{"accuracy": "99.99"}', 'results.json: no number under the key "accuracy"'),
        (json.dumps({f"a{FORGED}": 1.0}), '\'results.json: no number under the key "accuracy"; there are a\\n* acc'),
        (json.dumps(dict.fromkeys(map(str, range(5_000)), 1.0)), 'results.json: no number under the key "accuracy";'),
        (b"\xff\xfe{}", "results.json: Expecting value"),
    ],
)
def test_results_that_are_none(tmp_path, text, problem):
    found = run(tmp_path, text)
    assert found.value is None and found.problem.startswith(problem)
    assert found.problem.isprintable() and len(found.problem) < 1_100


NO_NUMBER = 'log.txt: "accuracy" is inf, which no run measures'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("* class: 0 (cat * accuracy: 99.99%)\ttotal: 1\tcorrect: 1\tacc: 100.00%", ""),
        ("Prompts: a * accuracy: 99.99%", ""),
        ("* accuracy: 1e999%", NO_NUMBER),
        ("* accuracy: " + "1" * 200_000, ""),  # an hour where the digits can be read in many ways
        ("* accuracy: " + "1" * 200_000 + "%", NO_NUMBER),
        ("* " + "a" * 200_000, ""),
        ("Loading CLIP \x1b[2J\u202e", 'it goes on after "Finish training" with "Loading CLIP \\x1b[2J\\u202e"'),
    ],
)
def test_lines_of_a_log(tmp_path, line, problem):
    found = run(tmp_path, LOG.format(accuracy="92.0") + line + "\n", "log.txt")
    assert found.value == (None if problem else 92.0)
    assert problem in found.problem and found.problem.isprintable()


def test_a_value_of_a_logged_config_that_is_no_literal(tmp_path):
    found = run(tmp_path, "KEY: {{}}\n" + LOG.format(accuracy="92.0"), "log.txt")  # a set in a set
    assert (found.value, found.logged) == (92.0, {"KEY": '"{{}}"'})


def test_names_of_folders_forge_no_line(tmp_path, capsys):
    for name in (f"seed1{FORGED}", "\x1b[2J", "²", "\u202eseed3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text('{"accuracy": 60.0}')
    (tmp_path / f"seed5{FORGED}").mkdir()
    assert parse_test_res.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("* ")] == ["* accuracy: 60.00% +- 0.00%"]
    assert len(lines) == 1 + 5 + 5 and all(map(str.isprintable, lines))


@pytest.mark.parametrize(
    "value",
    [FORGED, "\x1b[2J\u202e", "\ud800", "w" * 100_000, 10**4_000, float("nan"), [[[FORGED]] * 9] * 9, {FORGED: FORGED}],
    ids=["forged", "terminal", "surrogate", "long", "digits", "nan", "lists", "dict"],
)
def test_what_results_say_of_the_run(tmp_path, value):
    """Of its place by entries of results.json, of other seeds by settings whose keys are hostile too."""
    settings = {"settings": {FORGED: value, "w" * 5_000: value}, "trained_with": {FORGED: value}}
    write_results(tmp_path, "runs", {1: 60.0}, source=value, **settings)
    write_results(tmp_path, "runs", {2: 60.0}, settings={"LR": 1})
    runs = [parse_run(tmp_path / "runs" / f"seed{seed}") for seed in (1, 2)]
    problem, sentence = mismatch(runs[0], {"source": "ImageNet"}), differences([runs[0], runs[1]])
    assert problem.isprintable() and len(problem) < 1_100 and bool(problem) == isinstance(value, (str, int, float))
    assert sentence.isprintable() and len(sentence) < 2_000 and "LR is its default in seed1, 1 in seed2" in sentence


@pytest.mark.parametrize("said", ["a word", 7, None, [], {}])
def test_settings_that_are_none(tmp_path, said):
    write_results(tmp_path, "run", 60.0, settings=said, trained_with=said)
    assert parse_run(tmp_path / "run").settings == {}


class Tags(html.parser.HTMLParser):
    """The tags of a page and what stands between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def hostile_output(tmp_path):
    """One good run, one whose results are named in a hostile way, and such nearest words."""
    output, folder = tmp_path / "output", coop("dtd", "rn50").folder
    write_results(output, folder, {1: 60.0})
    (output / folder / "seed2").mkdir()
    (output / folder / "seed2" / "results.json").write_text(json.dumps({SCRIPT + LATEX + FORGED: 1.0}))
    write_results(output, nearest_words("dtd", "rn50").folder, {1: 60.0})
    word = {"word": SCRIPT + LATEX + FORGED, "token": 1, "distance": 0.5}
    vectors = [{"vector": 1, "words": [word]}, {"vector": 2, "words": [{**word, "distance": "x"}]}]
    vectors.append({"vector": 3, "words": [{**word, "word": "w" * 10_000}]})
    place = output / nearest_words("dtd", "rn50").folder / "seed1" / "nearest_words.json"
    place.write_text(json.dumps({"vectors": vectors}))
    return output


@pytest.mark.parametrize("kind", report.FORMATS)
def test_reports(hostile_output, capsys, kind):
    assert report.main(["--output-dir", str(hostile_output), "--format", kind]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "alert" in text and all(map(str.isprintable, lines)) and "w" * 1_001 not in text
    assert not any(line.startswith(("* accuracy", "\\input")) for line in lines)
    if kind == "html":
        page = Tags(text)
        assert not page.tags & {"script", "img"} and "<script>" in page.text


def test_names_of_folders_in_curves(tmp_path, capsys):
    names = ("$a$ & b", "$\\frac{", SCRIPT.replace("/", "-"), f"a{FORGED}", "\u202ea", "--><script>", "]]>")
    for name in names:
        for shots in (1, 2):
            write_results(tmp_path, f"{name}/{name}/rn50_{shots}shots/{END}", {1: 60.0})
    curves = find_curves(tmp_path, shots=(1, 2))
    assert sorted(curves.datasets) == sorted(names) and all(method.label.isprintable() for method in curves.methods)
    page = Tags(svg(draw_figure(curves)))
    assert not page.tags & {"script", "img"}
    (tmp_path / f"a{FORGED}" / f"a{FORGED}" / "rn50_4shots" / END / "seed1").mkdir(parents=True)
    args = ["--output-dir", str(tmp_path), "--dataset", f"a{FORGED}", "--shots", "1", "2", "4"]
    assert draw_curves.main([*args, "--out", str(tmp_path / "curves.png")]) == 0
    assert all(map(str.isprintable, capsys.readouterr().err.splitlines()))
