"""demo.py: what its page answers, by gradio's client and in a real browser, and that it calls nobody outside."""

import contextlib
import errno
import html
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from gradio_client import Client, handle_file
from PIL import Image

import demo
import export
from inference import page
from inference.classifier import Classifier
from tests.support.script_calls import ROOT
from tests.support.tiny_run import CLASSES, run_train, tiny_cfg

ROW = "{},face,face,0.9,leopard,0.1,1\n"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class Recorder(socketserver.BaseRequestHandler):
    """A proxy that notes the first line of what it is asked, and answers nothing."""

    def handle(self):
        self.server.asked.append(self.request.recv(1000).partition(b"\r")[0].decode())


@pytest.fixture(scope="module")
def outside():
    """Stands for all other machines: programs that ask them ask this proxy. Its `asked` is what they asked."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Recorder) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def served(outside, temporary, *arguments):
    """Starts demo.py in a process of its own; gives the process and what it has printed until the page is there."""
    url = f"http://127.0.0.1:{outside.server_address[1]}"
    proxy = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), url)
    environment = {**os.environ, **proxy, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "demo.py"), *map(str, arguments), f"--port={free_port()}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=temporary, **pipes) as process:
        try:
            lines = []
            while not lines or "The page is at" not in lines[-1]:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                lines.append(line)
            yield process, lines
        finally:
            process.kill()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def run(tiny_files, tmp_path_factory):
    """A finished run's folder with the paths of its test images, and what its results say."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    results = run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], folder, "TRAIN.CHECKPOINT_FREQ", 1))
    rows = [ROW.format(path) for path in ("test/face/0.png", "test/wine_bottle/1.png", "test/gone.png")]
    header = "path,true,prediction,probability,second,second_probability,rank\n"
    (folder / "predictions.csv").write_text(header + "".join(rows))
    return folder, results


@pytest.fixture(scope="module")
def address(run, outside, tmp_path_factory):
    with served(outside, tmp_path_factory.mktemp("serve"), run[0]) as (_, lines):
        yield lines[-1].split()[4].rstrip(".")


@pytest.fixture(scope="module")
def classify(address):
    """classify(path, other names): {class: probability} and the text of the page."""
    client = Client(address, verbose=False)

    def classify(path, typed=""):
        bars, note = client.predict(handle_file(str(path)), typed, api_name="/classify")
        return {bar["label"]: bar["confidence"] for bar in bars.get("confidences", ())}, html.unescape(note)

    return classify


def shown(classifier, path):
    """What the bars have to say."""
    return {name.replace("_", " "): pytest.approx(p, abs=1e-5) for name, p in classifier.topk(path, 5)[0]}


def test_the_bars_are_the_classifiers_answer(run, tiny_files, classify):
    path = tiny_files[0] / "test/wine_bottle/0.png"
    bars, note = classify(path)
    assert bars == shown(Classifier.from_run(run[0]), path) and len(bars) == 3
    assert "always picks one of its classes" in note


def test_other_class_names_change_the_bars(run, tiny_files, classify):
    path = tiny_files[0] / "test/face/1.png"
    bars, _ = classify(path, "tea pot, face\n\n green bottle ,")
    assert bars == shown(Classifier.from_run(run[0]).with_classes(["tea pot", "face", "green bottle"]), path)


@pytest.mark.parametrize(
    "typed, told", [("tea pot", "at least two"), (", ".join(map(str, range(1001))), "up to 1,000")]
)
def test_a_list_of_names_that_is_too_short_or_too_long_is_refused(tiny_files, classify, typed, told):
    bars, note = classify(tiny_files[0] / "test/face/1.png", typed)
    assert not bars and told in note


def test_a_method_that_knows_no_other_classes_says_so(run, tiny_files, tmp_path):
    assert export.main([str(run[0]), "--out", str(tmp_path / "out")]) == 0
    classifier, facts, examples = demo.open_run(demo.parse_args([str(tmp_path / "out")]))
    assert not examples and f"{run[1]['accuracy']:.1f}% of 9 test images" in page.measured(facts)
    assert "CoOp on CLIP" in page.head(classifier, {**facts, "warnings": 7})  # a stranger's export may say anything

    answers = page.Page(classifier, topk=5, uploads=tiny_files[0])
    upload = {"path": str(tiny_files[0] / "test/face/1.png")}
    assert answers.answer(upload, "")[0] == shown(Classifier.from_run(run[0]), upload["path"])
    bars, note = answers.answer(upload, "tea pot, face")
    assert bars is None and "cannot be used" in note and "knows no other classes than its own" in note


@pytest.mark.parametrize("name, told", [("empty", "0 bytes"), ("cut", "damaged"), ("huge", "50 megapixels")])
def test_an_image_that_cannot_be_used_is_named(tiny_files, tmp_path, classify, name, told):
    good, path = tiny_files[0] / "test/face/0.png", tmp_path / f"{name}.png"
    if name == "huge":
        Image.new("1", (10_000, 10_000)).save(path)
    else:
        path.write_bytes(good.read_bytes()[: 200 * (name == "cut")])
    bars, note = classify(path)
    assert not bars and told in note and f"{name}.png" in note and str(tmp_path) not in note


def test_a_photo_that_a_camera_marked_as_turned_is_classified_as_training_reads_it(run, tiny_files, tmp_path, classify):
    exif, path = Image.Exif(), tmp_path / "turned.png"
    exif[0x0112] = 6
    Image.open(tiny_files[0] / "test/face/0.png").save(path, exif=exif)
    bars, note = classify(path)
    assert bars == shown(Classifier.from_run(run[0]), tiny_files[0] / "test/face/0.png") and "as it is stored" in note


def test_no_file_but_an_upload_is_read(tiny_files, address):
    data = {"data": [{"path": str(tiny_files[0] / "test/face/0.png")}, ""]}
    call = requests.post(f"{address}/gradio_api/call/classify", json=data, timeout=60).json()
    answer = requests.get(f"{address}/gradio_api/call/classify/{call['event_id']}", timeout=60).text
    assert "no longer here" in answer and "face" not in answer


def test_the_page_says_which_run_it_is_and_what_to_doubt(run, address):
    config = requests.get(f"{address}/config", timeout=60).json()
    (head,) = (part["props"]["value"] for part in config["components"] if part["props"].get("elem_classes") == ["head"])
    head, results = html.unescape(head), run[1]
    assert f"It was right for {results['accuracy']:.1f}% of 9 test images" in head and "CoOp on CLIP" in head
    assert str(run[0]) in head and "wine bottle" in head
    assert results["warnings"] and all(warning in head for warning in results["warnings"])


def test_another_epoch_has_no_accuracy(run):
    _, facts, _ = demo.open_run(demo.parse_args([str(run[0]), "--epoch", "1"]))
    assert "not measured" in page.measured(facts)


@pytest.mark.browser
def test_in_a_browser(run, tiny_files, tmp_path, address):
    requested = []
    with browser() as chromium:
        tab = chromium.new_page()
        tab.on("request", lambda request: requested.append(request.url))
        tab.goto(address)
        heading = tab.get_by_test_id("label-output-value")
        examples = tab.locator(".gallery-item")
        examples.first.wait_for()
        assert examples.count() == 2  # the third image is gone

        examples.first.click()
        heading.wait_for()
        assert heading.inner_text().strip() in {name.replace("_", " ") for name in CLASSES}

        tab.get_by_label("Other classes").fill("a < b & c\nteapot")
        tab.get_by_role("button", name="Use these classes").click()
        tab.get_by_text("a < b & c", exact=True).first.wait_for()
        assert heading.inner_text().strip() in ("a < b & c", "teapot")

        (tmp_path / "broken.png").write_bytes(b"no image")
        tab.get_by_role("button", name="Clear").or_(tab.get_by_label("Remove Image")).first.click()
        tab.get_by_text("Drop an image").wait_for()
        tab.locator("input[type=file]").first.set_input_files(tmp_path / "broken.png")
        tab.get_by_text("broken.png cannot be read").wait_for()
    assert requested and [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []


@contextlib.contextmanager
def browser():
    """Starts the machine's Chromium, or playwright's; skips the test where there is neither."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        path = next(filter(None, map(shutil.which, CHROMIUM)), p.chromium.executable_path)
        if not Path(path).exists():
            pytest.skip("needs Chromium: `python -m playwright install chromium`")
        chromium = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def test_ctrl_c_ends_it_quietly_and_no_other_machine_was_asked(run, outside, tiny_files, tmp_path):
    with served(outside, tmp_path, run[0], "--host", "127.0.0.2") as (process, lines):
        address = lines[-1].split()[4].rstrip(".")
        image = handle_file(str(tiny_files[0] / "test/face/0.png"))
        Client(address, verbose=False).predict(image, "", api_name="/classify")
        assert list(tmp_path.glob("demo-*/*/0.png"))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert list(tmp_path.iterdir()) == []  # uploads are gone, and nothing lies in the folder where it was started
    assert "others can use the page" in "".join(lines)  # all but 127.0.0.1 may be reached by others
    assert outside.asked == []


def test_a_port_in_use_is_named_and_the_next_free_one_offered(run, capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert demo.main([str(run[0]), "--port", str(taken)]) == 1
        said = capsys.readouterr().err
        assert f"Port {taken} of 127.0.0.1 is in use" in said
        offered = int(said.rpartition("--port ")[2].rstrip(".\n"))
        socket.create_server(("127.0.0.1", offered)).close()

        monkeypatch.setattr(demo, "PORT", taken)
        assert demo.find_port(demo.HERE, None) == offered and f"takes {offered}" in capsys.readouterr().out


def test_a_port_that_is_not_allowed_is_named(monkeypatch):
    def refuse(address):
        raise PermissionError(errno.EACCES, "Permission denied")  # as for ports below 1024, but for root

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ValueError, match="may not open port 80: Permission denied. Name one from 1024 on"):
        demo.find_port(demo.HERE, 80)


@pytest.mark.parametrize("rows", [b"\xff", b"x" * 200_000])
def test_damaged_predictions_are_named(tmp_path, rows):
    (tmp_path / "predictions.csv").write_bytes(b"path,true\n" + rows + b",face\n")
    with pytest.raises(ValueError, match="predictions.csv is damaged"):
        demo.examples_of(tmp_path, "")


def test_an_example_of_an_impossible_name_is_left_out(tmp_path):
    (tmp_path / "predictions.csv").write_text("path,true\n" + "x" * 5000 + ",face\n")
    assert demo.examples_of(tmp_path, "") == []


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nowhere"], "nowhere does not exist"),
        (["nowhere", "--host", "192.0.2.1"], "--host is 192.0.2.1; it must be an address of this machine"),
    ],
)
def test_errors_are_one_line(arguments, told, capsys):
    assert demo.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and told in said and said.count("\n") == 1


def test_without_gradio_it_says_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo.main([str(run[0])]) == 1
    assert 'pip install -e ".[demo]"' in capsys.readouterr().err
