"""What has to be known of a table's numbers beside them: how they were selected, tested, set and measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..identity import DEFAULT
from ..named_config import MOST_NAMED, NOT_COMPARED, brief, default_settings
from ..runs import MODEL_OF, NOT_KNOWN, Run
from ..statistics import MIN_DATASETS
from .cells import Average, Cell, Cost, HarmonicMean, PeakMemory, Result, range_of_seeds
from .comparisons import is_transfer
from .table import Filled, FilledTable

READ_OFF = "read off a plot"  # of a published number
OTHER_MARK = "\u2016"  # of what is not known, and of a label that this version does not know
# Rule of `selection`, or `setting`, in results.json, or of a published number alone -> its mark, and what it means.
LABELS = {
    "full validation": ("\u2020", "{} chosen by the full validation set, which has more images than the shots"),
    "test (oracle)": ("\u2021", "{} chosen by test images (oracle): on new images the accuracy may be lower"),
    "transductive": ("\u00a7", "transductive: learned with test images, without their labels"),
    "open-world": ("\u00b6", "open-world: tested on base and new classes together"),
    NOT_KNOWN: (OTHER_MARK, "it is not known by which images {} chosen"),
    READ_OFF: ("\u2248", "read off a plot: right to about 0.3 points"),
}
MARKS = tuple(dict.fromkeys(mark for mark, _ in LABELS.values()))  # daggers, section, pilcrow, double bar, about
CHOSEN = {"epoch": "the epoch was", "hyperparameters": "the hyper-parameters were"}  # key of `selection` -> in words
WHAT_IS_CHOSEN = "the epoch or the hyper-parameters were"  # where a published number has the mark
FEW_SEEDS = 5
DIGESTS = {"test_transform": "tested with different transforms", "templates": "made with different templates"}


def marks_of(labels: Iterable[str]) -> str:
    """Returns the marks of a number, in the order of MARKS; see `Value.labels`."""
    found = {_mark_and_meaning(label)[0] for label in labels}
    return "".join(mark for mark in MARKS if mark in found)


def notes(filled: FilledTable) -> list[str]:
    """Returns the sentences below a table, those on its marks first."""
    return [
        *_legend(filled),
        *_interval_notes(filled),
        *_comparison_notes(filled),
        *_few_seeds_notes(filled),
        *_digest_notes(filled),
        *_settings_notes(filled),
        *_cost_notes(filled),
    ]


def _legend(filled: FilledTable) -> Iterator[str]:
    shown = [cell for _, pairs in filled.blocks for _, line in pairs for cell in line if cell]
    published = {label for cell in shown for label in cell.cell.paper_labels}
    labels = published | {label for cell in shown for label in cell.labels}
    selections = [run.selection for cell in filled.cells() if cell.cell.is_accuracy for run in cell.value.runs]
    for label in [*(label for label in LABELS if label in labels), *sorted(labels - LABELS.keys())]:
        chosen = {CHOSEN.get(key, key) for selection in selections for key, rule in selection.items() if rule == label}
        what = WHAT_IS_CHOSEN if label in published else " or ".join(sorted(chosen))
        mark, meaning = _mark_and_meaning(label)
        yield f"{mark} {meaning.format(what)}."


def _mark_and_meaning(label: str) -> tuple[str, str]:
    return LABELS.get(label, (OTHER_MARK, label.replace("{", "{{").replace("}", "}}")))


def _interval_notes(filled: FilledTable) -> Iterator[str]:
    if not filled.with_interval:
        return
    found = [cell for cell in filled.cells() if cell.cell.is_accuracy and cell.value.value is not None]
    without = {_why_no_interval(cell) for cell in found if cell.value.n_seeds and not filled.interval(cell)}
    if without:
        yield f"There is no interval for {' or '.join(sorted(without))}."


def _why_no_interval(cell: Filled) -> str:
    if cell.value.n_seeds == (1, 1):
        return "a single seed"
    return "H" if isinstance(_first(cell), HarmonicMean) else "averages whose data sets have unequal seeds"


def _comparison_notes(filled: FilledTable) -> Iterator[str]:
    if not filled.comparisons:
        if filled.baseline:
            yield f"Nothing is compared: no other method has a result where {filled.baseline} has one."
        return
    of_all = {c.n_datasets for c in filled.comparisons} | {c.n_planned for c in filled.comparisons}
    datasets = f"{max(of_all)} data set{'s' * (max(of_all) > 1)}" if len(of_all) == 1 else "data sets with both"
    yield f"Against {filled.baseline}: the mean difference in points over {datasets}, the seeds of each averaged first."
    if any(comparison.p is not None for comparison in filled.comparisons):
        yield (
            "p is that of the two-sided Wilcoxon signed-rank test (scipy's, differences of 0 left out); p (Holm) is "
            "corrected for the number of methods under the heading."
        )
    if any(is_transfer(cell) for _, cell in filled.subjects):
        yield "The data set learned on is not among those compared."
    if any(comparison.p is None for comparison in filled.comparisons):
        most = MIN_DATASETS - 1
        yield (
            f"No p from fewer than {MIN_DATASETS} data sets with a difference: even if all {most} agree, it is "
            f"{2 / 2**most:.4f}, above 0.05."
        )


def _few_seeds_notes(filled: FilledTable) -> Iterator[str]:
    intervals = range_of_seeds(cell.value for cell in filled.cells() if filled.interval(cell))
    behind = {"intervals": intervals, "comparisons": range_of_seeds(filled.comparisons)}
    few = {what: n_seeds[0] for what, n_seeds in behind.items() if n_seeds and n_seeds[0] < FEW_SEEDS}
    if few:
        fewest = min(few.values())
        seeds = f"as few as {fewest} seeds" if fewest > 1 else "a single seed"
        yield f"Some {' and '.join(few)} rest on {seeds}: other seeds may say otherwise."


def _digest_notes(filled: FilledTable) -> Iterator[str]:
    datasets = {subject.dataset for subject, _ in filled.subjects}
    for key, what in DIGESTS.items():
        found: dict[tuple[str, ...], list[str]] = {}  # the results of one digest, of another, ... -> data sets
        for dataset, by_digest in _by_digest(filled, key).items():
            if len(by_digest) > 1:
                found.setdefault(tuple(", ".join(names) for names in by_digest.values()), []).append(dataset)
        for groups, of in found.items():
            n_of_all = f"{len(of)} of the" if len(of) < len(datasets) else "all"
            where = ", ".join(of) if len(of) <= MOST_NAMED else f"{n_of_all} {len(datasets)} data sets"
            yield f"On {where} the results were {what}: {' / '.join(groups)}. The digests are in results.json."


def _by_digest(filled: FilledTable, key: str) -> dict[str, dict[str, dict[str, None]]]:
    """Returns data set -> digest -> the names of the results that have it, in the table's order."""
    of_method: dict[tuple[str, str], dict[str, dict[str, None]]] = {}  # data set, method -> digest -> measures
    for subject, cell in filled.subjects:
        for digest in (
            run.digests[key] for run in cell.value.runs if key in run.digests and isinstance(cell.cell, Result)
        ):
            of_method.setdefault((subject.dataset, subject.method), {}).setdefault(digest, {})[subject.measure] = None
    found: dict[str, dict[str, dict[str, None]]] = {}
    for (dataset, method), measures in of_method.items():
        for digest, of in measures.items():
            name = f"{method} ({', '.join(of)})" if len(measures) > 1 and any(of) else method
            found.setdefault(dataset, {}).setdefault(digest, {})[name] = None
    return found


def _settings_notes(filled: FilledTable) -> Iterator[str]:
    found: dict[str, dict[str, None]] = {}  # sentence -> measures
    measures: dict[str, dict[str, None]] = {}  # method -> measures
    for (method, measure), settings in _settings_of(filled).items():
        measures.setdefault(method, {})[measure] = None
        for sentence in _differences(settings):
            found.setdefault((method, sentence), {})[measure] = None
    said: dict[str, list[str]] = {}  # sentence -> methods
    for (method, sentence), of in found.items():
        where = f" ({', '.join(of)})" if of.keys() != measures[method].keys() else ""
        said.setdefault(sentence, []).append(f"{method}{where}")
    for sentence, methods in said.items():
        yield f"{'; '.join(methods)}: {sentence}."


def _settings_of(filled: FilledTable) -> dict[tuple[str, str], dict[str, Mapping[str, str]]]:
    """Returns (method, measure) -> data set -> the settings of its first run that says them."""
    found: dict[tuple[str, str], dict[str, Mapping[str, str]]] = {}
    for subject, cell in filled.subjects:
        run = next((run for run in cell.value.runs if run.settings), None)
        if run:
            found.setdefault((subject.method, subject.measure), {})[subject.dataset] = _settings(run)
    return found


def _settings(run: Run) -> dict[str, str]:
    """Returns the settings that decide a run and the training of its model, but for what differs in any case."""
    by_key = {key.removeprefix(MODEL_OF): value for key, value in run.settings.items()}  # the model's stand behind
    return {key: value for key, value in by_key.items() if key not in NOT_COMPARED and not key.startswith("DATASET.")}


def _differences(settings: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Returns for each key that differs between data sets its values, and on which they are."""
    for key in sorted({key for of_dataset in settings.values() for key in of_dataset}):
        default = default_settings().get(key, DEFAULT)
        values = {dataset: of_dataset.get(key, default) for dataset, of_dataset in settings.items()}
        if len(set(values.values())) < 2:
            continue
        common, n_common = Counter(values.values()).most_common(1)[0]
        others = common if n_common > 1 else None  # the value of the others
        parts = []
        for value in sorted(dict.fromkeys(values.values()), key=lambda value: value == others):
            where = (dataset for dataset, of_dataset in values.items() if of_dataset == value)
            parts.append(f"{brief(value)} on {'the others' if value == others else ', '.join(where)}")
        yield f"{key} is {', '.join(parts)}"


def _cost_notes(filled: FilledTable) -> Iterator[str]:
    costs = [cell for cell in filled.cells() if isinstance(_first(cell), (Cost, PeakMemory)) and cell.value.runs]
    devices: dict[str, dict[str, None]] = {}
    for cell in costs:
        name = cell.column if filled.table.methods_are_columns else cell.row.label
        for run in cell.value.runs:
            devices.setdefault(run.device or "an unknown device", {})[name] = None
    if len(devices) > 1:
        said = "; ".join(f"{', '.join(names)} on {device}" for device, names in devices.items())
        yield f"Costs are of different devices and do not compare: {said}."
    if any(isinstance(_first(cell), PeakMemory) for cell in costs):
        yield "Memory is the most that a run held at once: on a GPU its tensors, else its process."


def _first(cell: Filled) -> Cell:
    """Returns the cell, or the first of those that it averages."""
    return cell.cell.cells[0] if isinstance(cell.cell, Average) else cell.cell
