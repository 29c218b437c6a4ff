"""The few-shot curves against numbers worked out by hand, from made-up output folders."""

import xml.etree.ElementTree as ElementTree

import pytest

from draw_curves import main
from reports.experiments import FEATURE_METHODS
from reports.figures.curves import choose_looks, draw_figure, save_figure, svg
from reports.figures.few_shot import Curves, Method, average_lines, dataset_lines, find_curves
from reports.statistics import spread_of_averages
from tests.support.made_up_results import write_results

END, MIDDLE, CSC = "nctx16_cscFalse_ctpend", "nctx16_cscFalse_ctpmiddle", "nctx16_cscTrue_ctpend"
COOP = Method("CoOp", "", END)


def write_seeds(output, folder, accuracies):
    write_results(output, folder, dict(enumerate(accuracies, start=1)))


def write_curve(output, dataset, shots, accuracies=(60.0, 70.0), *, options=END):
    for n in shots:
        write_seeds(output, f"{dataset}/CoOp/rn50_{n}shots/{options}", accuracies)


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_visible()]


def test_mean_and_spread_of_the_seeds(tmp_path):
    write_seeds(tmp_path, f"dtd/CoOp/rn50_ep50_1shots/{END}", [50.0, 60.0])
    write_seeds(tmp_path, f"dtd/CoOp/rn50_ep100_2shots/{END}", [60.0, 66.0, 72.0])
    write_results(tmp_path, "ZeroshotCLIP/rn50/dtd", 42.5)
    curves = find_curves(tmp_path)
    assert (curves.backbone, curves.datasets, curves.methods) == ("rn50", ["dtd"], [COOP])
    lines = dataset_lines(curves, "dtd")
    assert lines[COOP] == {1: (55.0, 5.0), 2: pytest.approx((66.0, 24**0.5))}  # population standard deviations
    assert curves.zero_shot == {"dtd": 42.5}


def test_every_trainer_is_found_and_no_other_protocol(tmp_path):
    labels = {
        f"CoOp/rn50_16shots/{MIDDLE}": "CoOp (M=16, middle)",
        "CoOp/rn50_ctxv1_16shots/nctx4_cscFalse_ctpend": "CoOp (M=4, end, ctxv1)",
        f"CoOp/rn50_16shots/{CSC}": "CoOp (M=16, end, CSC)",
        "CoCoOp/rn50_c4_ep10_16shots": "CoCoOp (c4)",
        "Mine/rn50_16shots/alpha0.5": "Mine (alpha0.5)",
        "LinearProbe/rn50_16shots": "Linear probe",
    }
    for folder in labels:
        write_seeds(tmp_path, f"dtd/{folder}", [50.0])
    write_seeds(tmp_path, f"evaluation/CoOp/rn50_16shots/{END}/dtd", [1.0])
    write_seeds(tmp_path, "base2new/train_base/dtd/shots_16/CoOp/rn50", [1.0])
    curves = find_curves(tmp_path)
    assert curves.datasets == ["dtd"]
    assert [method.label for method in curves.methods] == list(labels.values())


def test_the_papers_epochs_count_where_there_are_several(tmp_path):
    for cfg, accuracy in {"rn50_ep50_1shots": 51.0, "rn50_1shots": 50.0, "rn50_ep50_8shots": 60.0}.items():
        write_seeds(tmp_path, f"dtd/CoOp/{cfg}/{END}", [accuracy])
    for cfg, accuracy in {"rn50_ep50_16shots": 71.0, "rn50_16shots": 70.0}.items():
        write_seeds(tmp_path, f"imagenet/CoOp/{cfg}/{END}", [accuracy])
    curves = find_curves(tmp_path)
    assert dataset_lines(curves, "dtd")[COOP] == {1: (51.0, 0.0), 8: (60.0, 0.0)}
    assert dataset_lines(curves, "imagenet")[COOP] == {16: (71.0, 0.0)}
    left_out = tmp_path / "dtd/CoOp/rn50_1shots" / END
    assert f"{left_out} is left out: rn50_ep50 is shown instead" in curves.notes


def test_a_figure_is_of_one_backbone(tmp_path):
    write_curve(tmp_path, "dtd", (1, 2))
    write_seeds(tmp_path, "dtd/CoOp/vit_b16_ep50_ctxv1_1shots/nctx4_cscFalse_ctpend", [75.0])
    curves = find_curves(tmp_path)
    assert (curves.backbone, curves.methods) == ("rn50", [COOP])
    assert "vit_b16 is another backbone, its experiments (1) are left out" in curves.notes
    assert find_curves(tmp_path, backbone="vit_b16").methods == [Method("CoOp", "_ctxv1", "nctx4_cscFalse_ctpend")]


def test_average_over_data_sets(tmp_path):
    write_curve(tmp_path, "dtd", (1,), [60.0, 70.0])
    write_curve(tmp_path, "dtd", (2,), [60.0, 70.0, 80.0])
    write_curve(tmp_path, "eurosat", (1, 2), [80.0, 90.0])
    curves = find_curves(tmp_path, shots=(1, 2))
    # The averages of single seeds are 70 and 80: mean 75, spread 5. With other seeds there is no spread, as in the
    # tables: the mean is over all seeds, so a spread over some of them would be that of other runs.
    assert average_lines(curves) == (["dtd", "eurosat"], {COOP: {1: (75.0, 5.0), 2: (77.5, 0.0)}})


def test_average_is_over_the_data_sets_on_which_all_its_methods_are_complete(tmp_path):
    for name in ("dtd", "eurosat", "food101"):
        write_curve(tmp_path, name, (1, 2), [60.0])
    write_curve(tmp_path, "caltech101", (1,))
    write_curve(tmp_path, "dtd", (1, 2), [50.0], options=MIDDLE)
    write_curve(tmp_path, "eurosat", (1, 2), [40.0], options=MIDDLE)
    write_curve(tmp_path, "dtd", (1,), options=CSC)
    curves = find_curves(tmp_path, shots=(1, 2))
    names, lines = average_lines(curves)
    assert names == ["dtd", "eurosat"]
    assert lines == {COOP: {1: (60.0, 0.0), 2: (60.0, 0.0)}, Method("CoOp", "", MIDDLE): {1: (45.0, 0), 2: (45.0, 0)}}
    assert titles(draw_figure(curves)) == ["Average (2 data sets)", "Caltech101", "Food101", "DTD", "EuroSAT"]


@pytest.mark.parametrize(
    "data_sets, spread",
    [
        (({1: 60.0, 2: 70.0}, {1: 80.0, 2: 94.0}), 6.0),  # averages of the seeds: 70 and 82
        (({1: 60.0, 2: 70.0}, {1: 80.0, 3: 94.0}), None),
        (({1: 60.0}, {1: 80.0}), None),
        (({1: 60.0}, {2: 80.0}), None),
    ],
)
def test_the_spread_of_averages(data_sets, spread):
    assert spread_of_averages(data_sets) == spread


def test_the_runs_of_another_script_beside_the_seeds_are_no_seed(tmp_path):
    """xd_train.sh puts seed1 into the folder that holds main.sh's nctxM_...; the tests may put other things there."""
    folder = "shapes/CoOp/tiny_ctxv1_16shots"
    write_seeds(tmp_path, folder, [60.0])
    write_seeds(tmp_path, f"{folder}/nctx4_cscFalse_ctpend", [70.0])
    write_results(tmp_path, "ZeroshotCLIP/tiny/shapes", 42.5)
    (tmp_path / folder / "notes.txt").touch()
    curves = find_curves(tmp_path)
    lines = dataset_lines(curves, "shapes")
    assert [(method.label, line[16][0]) for method, line in lines.items()] == [
        ("CoOp (M=4, end, ctxv1)", 70.0),
        ("CoOp (ctxv1)", 60.0),
    ]
    assert curves.notes == []


def test_what_is_drawn():
    seeds = {"seed1": 50.0, "seed2": 60.0}
    points = {COOP: {1: seeds, 4: {"seed1": 80.0}}, Method("CoOp", "", CSC): {1: {"seed1": 40.0}}}
    figure = draw_figure(Curves("rn50", (1, 4, 16), {"dtd": points}, {"dtd": 42.5}))
    (axes,) = figure.axes
    unified, class_specific, star = axes.get_lines()
    assert unified.get_xydata().tolist() == [[1, 55], [3, 80]]  # doublings after the step from 0 to 1
    assert star.get_xydata().tolist() == [[0, 42.5]] and star.get_marker() == "*"
    band = axes.collections[0].get_paths()[0].vertices
    assert {(1, 50), (1, 60), (3, 80)} == {tuple(map(float, point)) for point in band}
    assert (unified.get_linestyle(), class_specific.get_linestyle()) == ("-", "--")
    assert unified.get_color() == class_specific.get_color()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "4", "16"]
    assert axes.get_xlabel() == "Training images of each class"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["CoOp (M=16, end)", "CoOp (M=16, end, CSC)", "Zero-shot CLIP"]


def test_the_averages_star_needs_all_its_data_sets():
    points = {name: {COOP: {1: {"seed1": 60.0}}} for name in ("dtd", "eurosat")}
    both = draw_figure(Curves("rn50", (1,), points, {"dtd": 40.0, "eurosat": 50.0})).axes
    assert both[0].get_lines()[-1].get_xydata().tolist() == [[0, 45]]
    one = draw_figure(Curves("rn50", (1,), points, {"dtd": 40.0})).axes
    assert [len(axes.get_lines()) for axes in one] == [1, 2, 1]


def test_methods_look_different():
    methods = [Method("CoOp", "", f"nctx{m}_cscFalse_ctp{position}") for m in (16, 4) for position in ("end", "middle")]
    methods += [Method("CoCoOp", "_c4"), Method("LinearProbe"), Method("Mine")]
    looks = choose_looks(methods)
    assert len({tuple(look.values()) for look in looks.values()}) == len(methods)


@pytest.mark.parametrize("others", [("TaskRes", "GDA"), tuple(FEATURE_METHODS)])
def test_ones_own_method_has_a_colour_that_no_other_line_has(others):
    looks = choose_looks([*map(Method, others), Method("Mine")])
    own = looks.pop(Method("Mine"))
    assert own["color"] not in {look["color"] for look in looks.values()}


@pytest.mark.parametrize("n_datasets", [1, 2, 11])
def test_the_legend_is_inside_the_figure(n_datasets):
    kinds = [(m, csc, position) for m in (16, 4) for csc in (True, False) for position in ("end", "middle")]
    contexts = [f"nctx{m}_csc{csc}_ctp{position}" for m, csc, position in kinds]
    methods = [*(Method("CoOp", "", context) for context in contexts), Method("LinearProbe")]
    points = {f"set{i}": {method: {1: {"seed1": 60.0}} for method in methods} for i in range(n_datasets)}
    figure = draw_figure(Curves("rn50", (1,), points, dict.fromkeys(points, 40.0)))
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width and 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_formats(tmp_path):
    figure = draw_figure(Curves("rn50", (1,), {"dtd": {COOP: {1: {"seed1": 60.0}}}}))
    for name, start in {"a.png": b"\x89PNG", "a.pdf": b"%PDF", "a.svg": b"<?xml"}.items():
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    text = svg(figure)  # for a page
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert text.startswith("<svg") and text == svg(figure)


def test_command_says_what_is_uneven(tmp_path, call):
    write_curve(tmp_path, "dtd", (1,), [60.0, 70.0])
    write_curve(tmp_path, "dtd", (2,), [60.0])
    unfinished = tmp_path / "dtd/CoOp/rn50_2shots" / END / "seed2"
    unfinished.mkdir()
    write_results(tmp_path, "ZeroshotCLIP/rn50/eurosat", 40.0)
    out = tmp_path / "curves.svg"
    assert call(main, "--output-dir", tmp_path, "--out", out) == (
        0,
        f"{out}: rn50, data sets: 1, methods: 1\n",
        f"Note: {unfinished} is left out: it has neither log.txt nor results.json.\n"
        f"Note: {tmp_path}/ZeroshotCLIP/rn50/dtd is missing in the curves: it has neither log.txt nor results.json.\n"
        "Note: dtd, CoOp (M=16, end), 2-shot: the mean is over fewer seeds than elsewhere (1 of 2).\n",
    )


def test_command_draws_what_is_asked_for(tmp_path, call):
    write_curve(tmp_path, "dtd", (1, 2))
    write_curve(tmp_path, "eurosat", (1, 2))
    args = ["--output-dir", tmp_path, "--dataset", "eurosat", "--shots", "2", "--out", tmp_path / "a.svg"]
    assert call(main, *args)[:2] == (0, f"{tmp_path}/a.svg: rn50, data sets: 1, methods: 1\n")
    assert find_curves(tmp_path, datasets=["eurosat"], shots=[2]).points["eurosat"][COOP].keys() == {2}


@pytest.mark.parametrize(
    "args, message",
    [
        ((), "{} holds no finished few-shot run. Such runs are in folders like {}/caltech101/CoOp/rn50_16shots/"),
        (("--dataset", "dtd", "--backbone", "rn101"), "{} holds no finished few-shot run of dtd with rn101. Such runs"),
        (("--out", "curves.jpg"), "--out is curves.jpg; its name must end in one of .png, .pdf, .svg.\n"),
        (("--out", "{}/a/b.pdf"), "--out is {}/a/b.pdf, but the folder {}/a does not exist. Make it first.\n"),
        (("--output-dir", "{}/x"), "--output-dir {}/x does not exist (the part that does: {}). Check the spelling, or"),
    ],
)
def test_command_refuses(tmp_path, call, args, message):
    code, out, error = call(main, "--output-dir", tmp_path, *(arg.replace("{}", str(tmp_path)) for arg in args))
    assert (code, out) == (1, "")
    assert error.startswith("Error: " + message.replace("{}", str(tmp_path)))


def test_a_method_without_contexts_is_not_drawn_as_one_with_them(tmp_path):
    """The folder's name says what a script was called with, results.json what the method has."""
    options = {"n_ctx": None, "csc": None, "class_token_position": None}
    write_results(tmp_path, f"dtd/Mine/rn50_16shots/{CSC}", {1: 60.0}, trainer="Mine", **options)
    write_results(tmp_path, f"dtd/Mine/rn50_1shots/{CSC}", {1: 50.0})  # an older one does not say
    options |= {"n_ctx": 16, "class_token_position": "end"}
    write_results(tmp_path, f"dtd/Other/rn50_16shots/{CSC}", {1: 60.0}, trainer="Other", **options)
    curves = find_curves(tmp_path)
    assert [(method.label, list(curves.points["dtd"][method])) for method in curves.methods] == [
        ("Mine", [16, 1]),
        ("Other (M=16, end)", [16]),
    ]
    assert {look["linestyle"] for look in choose_looks(curves.methods).values()} == {"-"}


def test_a_context_that_starts_from_words_has_their_number_of_vectors(tmp_path):
    """Whatever NCTX was asked for, which the folder's name shows."""
    settings = {"TRAINER.COOP.CTX_INIT": "a photo of a"}
    write_results(tmp_path, f"dtd/CoOp/rn50_ctxv1_16shots/{END}", {1: 60.0}, trainer="CoOp", n_ctx=4, settings=settings)
    assert [method.label for method in find_curves(tmp_path).methods] == ["CoOp (M=4, end, ctxv1)"]
