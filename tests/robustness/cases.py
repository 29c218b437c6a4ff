"""Runs a folder of small inputs that came out wrong once, and says for each whether it comes out right now.

    an input -> the command that its user would call -> what is printed and left in results.json -> the right words?

Run: python -m tests.robustness.cases FOLDER [--only NAME ...]
FOLDER holds a folder for each case below; what is right stands in its README. It is copied before it is used.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.script_calls import ROOT

TINY = "--config-file configs/trainers/CoOp/tiny.yaml FEATURES.DIR {work}/features DATALOADER.NUM_WORKERS 0"
DATA = "--output-dir {out} --dataset-config-file configs/datasets"
ZERO_SHOT = f"train.py --root {{case}} --trainer ZeroshotCLIP --eval-only {DATA}/folder.yaml {TINY}"
NAMES = f"{ZERO_SHOT} DATASET.CLASSNAMES {{case}}"
CHECK = "-m datasets.check folder --root {case}"
PLUGIN = f"train.py --plugin {{case}}/%s --seed 1 {DATA}/shapes.yaml {TINY} DATASET.NUM_SHOTS 1"
BOOM = PLUGIN % "boom.py --plugin-config {case}/boom.yaml --trainer Boom" + " TRAINER.BOOM.HOW"
CLASSWISE = PLUGIN % "classwise.py --trainer ClassWise" + " OPTIM.MAX_EPOCH 1 DATASET.SUBSAMPLE_CLASSES"
ELSEWHERE = CLASSWISE.replace("{out}", "{out}-new --eval-only --model-dir {out} --load-epoch 1")
CONTEXT = PLUGIN.replace("--seed", "--trainer CoOp --plugin-config {case}/ctx.yaml --seed") % "ownsched.py"
LOGS = "parse_test_res.py {case}"
LEVELS = "print([image.getpixel((x, 5))[0] for x in (0, image.width // 2, image.width - 1)])"
PIXELS = "-c|from engine.data.image_io import read_image; image = read_image('{case}/%s'); " + LEVELS
BIRDS = """
from datasets.base import DATASET_REGISTRY, FewShotDataset

@DATASET_REGISTRY.register()
class Birds(FewShotDataset):
    dataset_dir, image_dir, split_file = "birds", "images", "split.json"
"""
SPLIT = (
    f"train.py --plugin {{work}}/birds.py --root {{case}} --trainer ZeroshotCLIP --eval-only {DATA}/folder.yaml {TINY}"
)

# Case -> its calls: what follows `python` (words, or parts between |), and the patterns that the answer must hold; one
# with ! in front it must not. {case} is a copy of its folder, {out} a new folder, {work} one that all cases share.
CASES: dict[str, list[tuple[str, list[str]]]] = {
    "all_jfif": [(ZERO_SHOT, [r"12 file.*are read.*jfif", r"total: 4"]), (CHECK, [r"12 file.*are read.*jfif"])],
    "avif": [(ZERO_SHOT, [r"6 \.avif, 6 \.jp2"]), (CHECK, [r"6 \.avif, 6 \.jp2"])],
    "backslash": [(f"{SPLIT} DATASET.NAME Birds", ["paths have backslashes"])],
    "bom_classnames": [(f"{NAMES}/{name}", [r"total: \d"]) for name in ("names.txt", "tab.txt", "csv.csv")],
    "case_twins": [(ZERO_SHOT, ["same prompt.*'cat'.*'Cat'"])],
    "intel": [(ZERO_SHOT, ["Images lie deeper, in seg_te?st|lie deeper"]), (CHECK, ["lie deeper"])],
    "log_of_another_run": [
        ("report.py few_shot --output-dir {case}/output", ["is of another run: dataset", "!81[.]02"])
    ],
    "logs": [
        (f"{LOGS}/dated", ["log[.]txt-2024-07-02-10-21-35", "accuracy: 90.00% "]),
        (f"{LOGS}/train_as_test", ["accuracy: 91.00% [+]- 0.82%"]),
        (f"{LOGS}/clip_again", ["left out .*Loading CLIP"]),
        (f"{LOGS}/epoch_lines_after", ["left out .*goes on after"]),
        (f"{LOGS}/crlf", ["accuracy: 66.00%"]),
    ],
    "merged_names": [
        (f"{NAMES}/names.txt", ["same prompt.*'red square'"]),
        (f"{NAMES}/dup.txt", ["Error.*lines 1 and 4 both name the folder setter"]),
    ],
    "nested_mixed": [(ZERO_SHOT, ["16 image.*not read"]), (CHECK, ["16 image.*not read"])],
    "nested_only": [(ZERO_SHOT, ["lie deeper"]), (CHECK, ["lie deeper"])],
    "nfc_nfd": [(ZERO_SHOT, [r"total: \d", "# classes +2"])],
    "nfc_nfd_root": [(ZERO_SHOT, ["different Unicode forms", "same prompt"])],
    "nfd_only": [(ZERO_SHOT, [r"total: \d"])],
    "no_suffix": [(ZERO_SHOT, ["6 file.*are read", "total: 6"])],
    "plugins": [
        (PLUGIN % "ownsched.py --trainer OwnSched" + " OPTIM.MAX_EPOCH 2 OPTIM.LR 0.5", [r"accuracy: \d"]),
        (f"{CLASSWISE} base", [r"accuracy: \d"]),
        (f"{ELSEWHERE} new", ["Error.*classes", "!accuracy: "]),
        (PLUGIN % "pk/rel.py --trainer Rel", ["!relative import", "Rel has no build_model"]),
        (f"{BOOM} key", [r"boom[.]py, line 9: KeyError: Shapes"]),
        (f"{BOOM} item", [r"boom[.]py, line 11: KeyError: DEVICE"]),
        (f"{BOOM} value", [r"boom[.]py, line 13: ValueError: too many"]),
        (f"{BOOM} file", [r"boom[.]py, line 15: FileNotFoundError"]),
        (f"{BOOM} option", ["OPTIM.NEW_LR"]),
        (f"{BOOM} clip", [r"boom[.]py, line 20", "`clip` is here this project's"]),
        (f"{CONTEXT} OPTIM.MAX_EPOCH 1", [r"accuracy: \d"]),
    ],
    "same_prompt": [(ZERO_SHOT, ["same prompt.*'apple_pie'.*'apple pie'"])],
    "seeds_other_data": [("{case}/case.py .", ["Warning.*items"])],
    "single_class": [
        (ZERO_SHOT, ["single class"]),
        (f"{ZERO_SHOT} DATASET.SUBSAMPLE_CLASSES new", ["no second half"]),
    ],
    "spaces_classnames": [(f"{NAMES}/names.txt", [r"total: \d"])],
    "tiff_bits": [
        (PIXELS % "g12.tif", [r"\[0, 1(29|30|31), 255\]"]),
        (PIXELS % "g16_white_is_zero.tif", [r"\[255, 12\d, 0\]"]),
    ],
    "weights_formats": [
        (
            "{case}/case.py .",
            ["module[.]: loads", "key model: loads", "an image tower alone", "those of Hugging Face's"],
        )
    ],
    "upper_train": [(ZERO_SHOT, ["# train_x +16", "total: 8"])],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.cases", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES), metavar="NAME")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        Path(work, "birds.py").write_text(BIRDS, encoding="utf-8")
        answers = [is_right(args.folder / name, Path(work)) for name in args.only]
    print(f"{sum(answers)} of {len(answers)} cases come out right")
    return 0 if all(answers) else 1


def is_right(case: Path, work: Path) -> bool:
    """Calls the commands of a case, prints the line of each answer that matters, and says if all are right."""
    copy, out = work / case.name, work / "runs" / case.name
    shutil.copytree(case, copy, copy_function=shutil.copyfile)
    for folder in [copy, *filter(Path.is_dir, copy.rglob("*"))]:
        folder.chmod(0o755)  # the original may be one that cannot be written
    n_wrong = 0
    for number, (command, patterns) in enumerate(CASES[case.name]):
        shares_folder = "classwise.py" in command  # the second call tests what the first has trained
        values = {"case": copy, "work": work, "out": out / ("classwise" if shares_folder else str(number))}
        words = command.split("|") if "|" in command else command.split()
        answer = answer_of([word.format(**values) if "{" in word else word for word in words])
        wrong = [text for text in patterns if bool(re.search(text.lstrip("!"), answer)) == text.startswith("!")]
        n_wrong += bool(wrong)
        shown = next((line for text in patterns for line in answer.splitlines() if re.search(text, line)), "")
        print(f"{'WRONG' if wrong else 'right'} | {case.name} | {shown.strip()[:160]}", flush=True)
        if wrong:
            print(f"  not as it should be: {wrong}\n{answer[-2000:]}")
    return not n_wrong


def answer_of(words: list[str]) -> str:
    """Returns what a command prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
