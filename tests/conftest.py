"""What several files of tests start from."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from clip import packed_tower
from datasets.folder import Folder
from engine import DATASET_REGISTRY, Datum
from tests.support.small_copies import small_copy, small_web
from tests.support.tiny_run import train_flags, write_clip, write_images

# Files whose tests train, draw data sets or start processes, some seconds in all: `scripts/test.sh quick` is for the
# minutes between two edits and leaves them out.
SLOW = {
    "benchmarks/test_gpu.py",
    "benchmarks/test_machine.py",
    "benchmarks/test_runs.py",
    "benchmarks/test_text_side.py",
    "clip/backbones/test_open_clip.py",
    "clip/backbones/test_open_clip_names.py",
    "trainers/text_side/test_compiled_prompts.py",
    "clip/test_models.py",
    "trainers/text_side/test_compiled_text.py",
    "dassl/test_dassl.py",
    "dassl/test_dassl_methods.py",
    "dassl/test_deep_names.py",
    "dassl/test_schedules.py",
    "clip/backbones/test_beside.py",
    "clip/backbones/test_edited_config.py",
    "clip/backbones/test_hf.py",
    "clip/backbones/test_hf_refused.py",
    "datasets/test_paper_datasets.py",
    "datasets/test_shapes.py",
    "datasets/test_shapes_shifted.py",
    "engine/data/test_bad_images.py",
    "engine/run/test_guessing.py",
    "engine/data/test_class_rows.py",
    "engine/evaluation/test_answer_files.py",
    "engine/evaluation/test_ranks.py",
    "engine/features/test_digests.py",
    "engine/run/test_inputs.py",
    "engine/run/test_selection.py",
    "engine/run/test_warnings.py",
    "engine/test_distributed.py",
    "engine/test_process_cache.py",
    "engine/test_trackers.py",
    "inference/test_classifier.py",
    "inference/test_demo.py",
    "inference/test_export.py",
    "inference/test_onnx.py",
    "inference/test_predict.py",
    "interface/test_startup.py",
    "interface/test_train_python.py",
    "launch/test_grid.py",
    "reports/test_curves.py",
    "reports/test_identity.py",
    "reports/test_named_config.py",
    "reports/of_run/test_page.py",
    "resume/test_interruption.py",
    "resume/test_resume.py",
    "robustness/test_dirty_images.py",
    "robustness/test_full_disk.py",
    "smoke/test_pretrain_shapes.py",
    "smoke/test_other_libraries.py",
    "smoke/test_protocols.py",
    "smoke/test_tour.py",
    "trainers/test_imagenet_templates.py",
    "tools/test_contact_sheet.py",
    "trainers/test_kgcoop.py",
    "trainers/test_linear_probe.py",
    "trainers/test_other_backbones.py",
    "trainers/test_prograd.py",
    "trainers/test_same_prompts.py",
    "trainers/test_plugin_clip.py",
}


def pytest_collection_modifyitems(items):
    tests = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(tests) and item.path.relative_to(tests).as_posix() in SLOW:
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def feature_cache(tmp_path_factory):
    """No test reads or writes the user's cache of image features; programs that tests start neither."""
    os.environ["COOP_FEATURES"] = str(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory):
    """A folder of small images, and the files of both small CLIPs by kind; nobody changes them."""
    folder = tmp_path_factory.mktemp("tiny")
    write_images(folder / "data")
    return folder / "data", {kind: write_clip(folder / f"{kind}.pt", kind) for kind in ("vit", "rn")}


@pytest.fixture(params=[0, packed_tower.AT_ONCE], ids=["by groups", "at once"])
def both_attentions(request, monkeypatch):
    """A test with few rows takes both ways through the packed text tower's attention."""
    monkeypatch.setattr(packed_tower, "AT_ONCE", request.param)


@pytest.fixture
def argv(tiny_files, tmp_path):
    """Returns train.py's arguments for a run of three epochs of three batches in a folder; key, value, ... on top."""
    data, clips = tiny_files
    flags, keys = train_flags(tmp_path, data, clips["vit"]), ("USE_CUDA", "False", "FEATURES.DIR", "")
    return lambda name, *pairs: [*flags, f"--output-dir={tmp_path / name}", *keys, *pairs]


@pytest.fixture
def register():
    """register(REGISTRY, a class[, name]): it is registered for the time of a test, also in place of another one."""
    with ExitStack() as overlays:

        def register(registry, cls, name=None):
            overlays.enter_context(registry.overlay())
            registry.register(cls, name=name)

        yield register


@pytest.fixture
def some_classes(register, tmp_path):
    """A data set Some, to test on: the tiny folder's classes 2 and 0, in this order; and its folder."""
    data = write_images(tmp_path / "some", splits=("test",))

    class Some(Folder):
        source_labels = (2, 0)

        @classmethod
        def read_items(cls, root):
            items = [item for item in super().read_items(root)[2] if item.label != 1]
            return [], [], [Datum(x.impath, int(x.label == 0), classname=x.classname) for x in items]

    register(DATASET_REGISTRY, Some)
    return Some, data


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A loopback server that stands for all publishers."""
    with small_web(tmp_path / "web", monkeypatch) as web:
        yield web


@pytest.fixture
def dtd(web, monkeypatch):
    """The small copy of DTD, which its publisher, Google Drive and the mirror have."""
    copy = small_copy("dtd", monkeypatch)
    web.publish(copy)
    return copy
