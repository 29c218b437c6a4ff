"""log.txt and the terminal get the same bare lines; meters."""

import io
import logging
import os
import sys
import time

import pytest
import torch

from engine.log import AverageMeter, MetricMeter, close_logging, environment, progress, say, setup_logging

logger = logging.getLogger("engine.test")


@pytest.fixture(autouse=True)
def end_logging():
    yield
    close_logging()


def test_bare_lines_on_the_terminal_and_in_log_txt(tmp_path, capsys):
    setup_logging(tmp_path / "new" / "run")
    logger.info("* accuracy: %.2f%%", 92.004)
    logger.warning("PREC fp16 needs a GPU")
    logger.debug("hidden")
    lines = "* accuracy: 92.00%\nPREC fp16 needs a GPU\n"
    assert capsys.readouterr().out == lines
    assert (tmp_path / "new" / "run" / "log.txt").read_text() == lines


def test_log_txt_is_appended_to(tmp_path):
    for message in ("first call", "resumed"):
        setup_logging(tmp_path)
        logger.info(message)
    assert (tmp_path / "log.txt").read_text() == "first call\nresumed\n"


def test_a_second_run_writes_into_its_own_log(tmp_path, capsys):
    for name in ("a", "b"):
        setup_logging(tmp_path / name)
        logger.info(name)
    assert (tmp_path / "a" / "log.txt").read_text() == "a\n"
    assert capsys.readouterr().out == "a\nb\n"


def test_closed_logging_says_nothing(tmp_path, capsys):
    setup_logging(tmp_path)
    close_logging()
    logger.info("unheard")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "log.txt").read_text() == ""


def test_tracebacks_go_to_log_txt_alone(tmp_path, capsys):
    setup_logging(tmp_path)
    try:
        raise ValueError("too long")
    except ValueError:
        logger.info("The run ended with an error", exc_info=True)
    assert capsys.readouterr().out == ""
    text = (tmp_path / "log.txt").read_text()
    assert "Traceback" in text and text.endswith("ValueError: too long\n")


def full():
    return open("/dev/full", "w")


def unread():
    """A pipe whose reader has gone, as `| head -1` does."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize(
    ("opened", "reason"), [(full, "No space left on device"), (unread, "Broken pipe")], ids=["full disk", "pipe"]
)
def test_a_terminal_that_takes_no_more_ends_no_run(tmp_path, monkeypatch, capsys, opened, reason):
    with opened() as stdout:  # its end would raise what is left to be written, as Python's end does
        monkeypatch.setattr(sys, "stdout", stdout)
        setup_logging(tmp_path)
        for i in range(3):
            logger.info(f"line {i}")
    warning = f"Standard output cannot be written ({reason}): what follows is in log.txt alone."
    assert capsys.readouterr().err == f"{warning}\n"
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert sorted(lines) == sorted([warning, "line 0", "line 1", "line 2"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_so_where_the_warning_cannot_be_written_either(monkeypatch):
    with full() as stdout, full() as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        say("Done already")
        say("once more")
        monkeypatch.undo()
        os.dup2(stdout.fileno(), stderr.fileno())  # for its end


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stdout)
    say("naïve 猫")
    assert stdout.buffer.getvalue() == b"na\xefve \\u732b\n"


def test_names_beyond_ascii(tmp_path):
    setup_logging(tmp_path)
    logger.info("naïve café")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "naïve café\n"


def test_other_packages_are_heard_from_warnings_on(tmp_path):
    setup_logging(tmp_path)
    logging.getLogger("PIL").info("reads a chunk")
    logging.getLogger("PIL").warning("broken chunk")
    assert (tmp_path / "log.txt").read_text() == "broken chunk\n"


def test_average_meter_weighs_by_count():
    meter = AverageMeter()
    assert meter.average == 0
    meter.update(1.0, n=3)
    meter.update(5.0)
    assert (meter.value, meter.average) == (5.0, 2.0)


def test_metric_meter_prints_last_value_and_mean():
    meters = MetricMeter()
    meters.update({"loss": 1.0, "acc": torch.tensor(50.0)})
    meters.update({"loss": 2.0, "acc": 100})
    assert str(meters) == "loss 2.0000 (1.5000) acc 100.0000 (75.0000)"


def test_environment_names_the_versions():
    assert torch.__version__ in environment()
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in environment()


def test_where_there_is_no_terminal_a_line_tells_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    seen = []
    with caplog.at_level(logging.INFO, logger="engine"):
        for batch in progress([10, 20, 30, 40], "test", n_done=1000, n=1004):
            seen.append(batch)
            now_s[0] += 40
    assert seen == [10, 20, 30, 40]
    assert caplog.messages == ["test: 1,002 of 1,004", "test: 1,004 of 1,004"]
