"""The page of demo.py: an image and, if wanted, other class names go in; bars of the most probable classes come out.

upload -> image ----\
                     Classifier of these names -> bars, and a sentence where there is something to say
typed text -> names -/

Everything comes from this machine: no font, script or count of visits from elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies_environment

from engine.text import printable

from .classifier import Classifier
from .visitor import read_names, read_upload

if TYPE_CHECKING:
    import gradio

MAX_FILE = "40mb"
N_KEPT = 4  # classifiers of typed names
KEPT_S = 3600  # seconds for which an upload stays on the disk

WAITING = "Drop an image, or take one with the webcam."
CLOSED = "It always picks one of its classes, even for a picture that shows none of them."
REFUSED = "These classes cannot be used. Empty the box to go back to the classifier's own."
CSS = """
.gradio-container {max-width: 1100px !important; margin: 0 auto !important}
.head h1 {font-size: 1.6rem; margin: 0.5rem 0 0.25rem}
.head p {margin: 0.25rem 0}
.small {font-size: 0.85rem; opacity: 0.75; overflow-wrap: anywhere}
.head details {margin: 0.4rem 0; overflow-wrap: anywhere}
.image-frame img {width: 100%; height: 100%; object-fit: contain}
.told {border-left: 4px solid #d97706; padding: 0.4rem 0.75rem; margin: 0.4rem 0; overflow-wrap: anywhere}
"""


class Page:
    """What the page answers.

    Args:
        classifier: Of the run's own classes.
        topk: How many bars there are.
        uploads: The folder of the images that are dropped on it.
    """

    def __init__(self, classifier: Classifier, *, topk: int, uploads: Path):
        self.topk, self.uploads, self.shorter_edge = topk, uploads, classifier.shorter_edge
        self.of_names = lru_cache(N_KEPT)(lambda names: classifier.with_classes(names) if names else classifier)

    def answer(self, upload: dict[str, Any] | None, typed: str) -> tuple[dict[str, float] | None, str]:
        """Returns class -> probability, and HTML that says what is doubtful or wrong.

        Args:
            upload: Where the browser's file is, as gradio says it; None: there is none yet.
            typed: Other class names; "": the run's own.
        """
        if upload is None:
            return None, WAITING
        try:
            image, doubts = read_upload(upload, self.uploads, shorter_edge=self.shorter_edge)
            names = read_names(typed)
        except ValueError as error:
            return None, told([str(error)])
        try:
            classifier = self.of_names(names)
        except ValueError as error:  # for instance, the method learns something for each of its classes
            return None, told([REFUSED, str(error)])
        bars: Counter[str] = Counter()
        for name, probability in classifier.topk(image, self.topk)[0]:  # two classes may have one name, as in ImageNet
            bars[plain(name)] += probability
        doubts += classifier.trainer.warnings if names else ()  # of its own names the head of the page has told
        return dict(bars), f'{told(doubts)}<div class="small">{CLOSED}</div>'


def plain(name: str) -> str:
    return printable(name.replace("_", " "))


def told(sentences: Sequence[str]) -> str:
    return "".join(f'<div class="told">{escape(sentence)}</div>' for sentence in sentences)


@contextmanager
def serving(
    classifier: Classifier,
    facts: dict[str, Any],
    examples: Sequence[str],
    *,
    topk: int,
    host: str,
    port: int,
    share: bool = False,
) -> Iterator[str]:
    """Serves the page, from threads, until the `with` block ends; gives its address.

    Args:
        classifier: Of the run.
        facts: Entries of results.json, or of an export's config.json, and `run`, the folder.
        examples: Paths of images to try.
        topk: How many bars there are.
        host: Address to listen on.
        port: A free one.
        share: Whether gradio also gives the page an address that the world can reach.
    """
    with TemporaryDirectory(prefix="demo-") as uploads:
        gr = import_gradio(uploads, host)
        page = Page(classifier, topk=topk, uploads=Path(uploads))
        blocks = layout(gr, page, head(classifier, facts), title(classifier), examples)
        launch(gr, blocks, server_name=host, server_port=port, share=share)
        try:
            yield blocks.local_url.rstrip("/")
        finally:
            blocks.close(verbose=False)


def require_gradio() -> None:
    """Raises ValueError if gradio is not installed."""
    if find_spec("gradio") is None:
        raise ValueError('The page needs gradio, which is not installed. Install it: pip install -e ".[demo]"')


def import_gradio(uploads: str, host: str) -> ModuleType:
    """Imports gradio so that it calls nobody but its own server, and keeps uploads in a folder."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # else it counts its use, and asks for a newer version
    os.environ["GRADIO_RUN_HISTORY"] = "False"  # else the browser keeps the images
    os.environ["GRADIO_TEMP_DIR"] = uploads  # its own is one for all users of a machine, and stays
    own = getproxies_environment().get("no", "")
    os.environ["no_proxy"] = ",".join(filter(None, [own, host, "localhost"]))
    import gradio

    return gradio


def layout(gr: ModuleType, page: Page, above: str, title: str, examples: Sequence[str]) -> gradio.Blocks:
    with gr.Blocks(title=title, delete_cache=(KEPT_S, KEPT_S)) as blocks:
        gr.HTML(above, elem_classes="head")
        with gr.Row():
            with gr.Column():
                image = gr.Image(label="Image", sources=["upload", "webcam", "clipboard"], height=340, buttons=[])
            with gr.Column():
                bars = gr.Label(label="Most probable classes")
                note = gr.HTML(WAITING)
        with gr.Row():
            if examples:
                with gr.Column():
                    gr.Examples([[path] for path in examples], image, label="Test images of the run: click on one")
            with gr.Column():
                names = gr.Textbox(
                    label="Other classes",
                    info="One a line, or with commas. Left empty: the classifier's own.",
                    placeholder="cat, dog, bird",
                    lines=3,
                )
                button = gr.Button("Use these classes", variant="primary")
        gr.on(
            [image.change, names.submit, button.click],
            page.answer,
            [image, names],
            [bars, note],
            api_name="classify",
            preprocess=False,  # of an image: gradio would turn it by its EXIF data, and answer a broken one itself
            show_progress="minimal",
            concurrency_limit=1,
        )
    return blocks


def launch(gr: ModuleType, blocks: gradio.Blocks, **options: Any) -> None:
    font = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]  # a name alone would be asked of the server
    blocks.launch(
        prevent_thread_lock=True,
        quiet=True,
        inline=False,
        show_error=True,
        max_file_size=MAX_FILE,
        theme=gr.themes.Default(font=font, font_mono=font).set(block_info_text_color="*neutral_600"),
        css=CSS,
        footer_links=[],
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        **options,
    )


# What the page says of the run


def title(classifier: Classifier) -> str:
    return f"Image classifier: {len(classifier.classnames):,} classes"


def head(classifier: Classifier, facts: dict[str, Any]) -> str:
    """Returns the HTML above the image: which run it is, how good, and what its warnings are."""
    names = ", ".join(map(plain, classifier.classnames))
    told_by_run = facts.get("warnings")  # an export may be a stranger's, with anything in it
    doubts = [*(told_by_run if isinstance(told_by_run, list) else ()), *classifier.trainer.warnings]
    warnings = dict.fromkeys(map(str, doubts))
    return (
        f"<h1>{escape(title(classifier))}</h1>"
        f"<p>{escape(measured(facts))}</p>"
        f'<p class="small">Run: {escape(printable(str(facts["run"])))}</p>'
        f"{told([f'Warning: {printable(warning)}' for warning in warnings])}"
        f"<details><summary>The {len(classifier.classnames):,} classes</summary>{escape(names)}</details>"
    )


def measured(facts: dict[str, Any]) -> str:
    """Returns the sentences on method, training and accuracy."""
    source, dataset, shots = (facts.get(key) for key in ("source", "dataset", "shots"))
    accuracy, total = facts.get("accuracy"), facts.get("total")
    images = "all training images"
    if isinstance(shots, int) and shots > 0:
        images = f"{shots} image{'s' * (shots > 1)} of each class"
    trained = f"trained with {images} of {source}" if source else "without training"
    said = f"{facts.get('trainer')} on CLIP {facts.get('backbone')}, {trained}."
    if not (isinstance(accuracy, (int, float)) and isinstance(total, int)):
        return f"{said} Its accuracy was not measured."
    tested = f"{total:,} test images" + (f" of {dataset}" if dataset != source else "")
    return f"{said} It was right for {accuracy:.1f}% of {tested}."
