"""docs/tour.ipynb, cell by cell, in a kernel of this interpreter and a repository in which nothing has run yet."""

import json
import re
import shutil

import nbformat
from nbclient import NotebookClient

from tests.support.script_calls import ROOT

MADE_BY_RUNS = {"data", "output"}


def test_what_its_cells_say(tmp_path):
    for path in ROOT.iterdir():
        if path.name not in {"docs", ".git", *MADE_BY_RUNS}:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/tour.ipynb", tmp_path / "docs")
    notebook = nbformat.read(tmp_path / "docs/tour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before a commit"
    kernel = {"metadata": {"path": str(tmp_path / "docs")}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=kernel).execute()

    said = {cell.id: printed(cell) for cell in notebook.cells if cell.cell_type == "code"}
    zero_shot, coop = (read_results(tmp_path / "output/tour" / name) for name in ("zero_shot", "coop"))
    assert coop["accuracy"] > zero_shot["accuracy"] + 3
    assert said["compare"] == f"zero-shot CLIP {zero_shot['accuracy']:.1f} %, CoOp {coop['accuracy']:.1f} %\n"
    assert said["mistakes"].startswith(f"{1920 - coop['correct']:,} of 1,920 images\n")
    assert len(said["classify"].splitlines()) == 4
    assert int(re.match(r"(\d+)% of the shapes", said["classes"])[1]) > 50  # chance: 8
    assert said["export"].splitlines()[0] == "Wrote output/tour/classifier: 96 classes"
    assert said["export"].endswith("100.0% of its answers are those of the run\n")
    pictures = [cell.id for cell in notebook.cells if "image/png" in str(cell.get("outputs"))]
    assert pictures == ["curve", "mistakes"]


def printed(cell):
    """What a cell has printed."""
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def read_results(folder):
    return json.loads((folder / "results.json").read_text())
