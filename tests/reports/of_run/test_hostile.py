"""A stranger's run in report.py --run: names and paths stay text, and what is no image is never read."""

import os

import pytest
from PIL import Image

from report import main
from tests.reports.of_run.html_page import Page
from tests.reports.of_run.made_up_run import write_run

SCRIPT = "</li></table></svg></title><script>alert(1)</script><img src=x onerror=alert(1)>"
NAMES = [SCRIPT, "\n* accuracy: 99.99%\n", "\x1b[2J\u202e", "\udcff", "w" * 20_000, "猫", '"quoted", comma']


@pytest.fixture
def hostile_run(tmp_path):
    """Every name and path is hostile; one image is a pipe, one lies far away, one is real."""
    os.mkfifo(tmp_path / "pipe.jpg")
    Image.new("RGB", (8, 1), "green").save(tmp_path / "café.png")
    paths = ["pipe.jpg", "/dev/zero", SCRIPT, "a" * 20_000, "\x00", "\udcff.jpg", "café.png", "..", ""]
    rows = []
    for i, path in enumerate(paths):
        true, best, second = (NAMES[(i + j) % len(NAMES)] for j in range(3))
        rows.append([path, true, best, "0.500000", second, "0.200000", 3])
    results = dict.fromkeys(("trainer", "dataset", "backbone", "seed", "split"), SCRIPT)
    results |= {"warnings": [SCRIPT, {SCRIPT: 1}], SCRIPT: 0.5, "epoch": "\u202e", "nll": 1e300}
    return write_run(tmp_path / "run", rows, root=tmp_path, classnames=NAMES, **results)


def test_a_page_stays_a_page(hostile_run, tmp_path):
    assert main(["--run", str(hostile_run), "--format", "html", "--out", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images and all(x["src"].startswith("data:image/jpeg") and "onerror" not in x for x in images)
    text = "".join(text for _, text in page.texts)
    assert "<script>" in text and "w" * 1_001 not in text and "\x1b" not in text and "\u202e" not in text
    assert page.find("section#mistakes", "div.absent").count("The image is no file.") == 4


def test_a_summary_forges_no_line(hostile_run, capsys):
    assert main(["--run", str(hostile_run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(map(str.isprintable, lines)) and not any(line.startswith("* accuracy") for line in lines)
    assert max(map(len, lines)) < 3_000
