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
    logger.warning("PREC fp16 needs a café")
    logger.debug("hidden")
    logging.getLogger("PIL").info("reads a chunk")
    logging.getLogger("PIL").warning("broken chunk")
    lines = "* accuracy: 92.00%\nPREC fp16 needs a café\nbroken chunk\n"
    assert capsys.readouterr().out == lines
    assert (tmp_path / "new" / "run" / "log.txt").read_text(encoding="utf-8") == lines


def test_each_run_has_its_own_log_which_is_appended_to(tmp_path, capsys):
    for name in ("a", "b", "a"):
        setup_logging(tmp_path / name)
        logger.info(f"of {name}")
    close_logging()
    logger.info("unheard")
    assert (tmp_path / "a" / "log.txt").read_text() == "of a\nof a\n"
    assert (tmp_path / "b" / "log.txt").read_text() == "of b\n"
    assert capsys.readouterr().out == "of a\nof b\nof a\n"


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


def test_average_meter_weighs_by_count():
    meter = AverageMeter()
    assert meter.average == 0
    meter.update(1.0, n=3)
    meter.update(5.0)
    assert (meter.value, meter.average) == (5.0, 2.0)


def test_a_metric_meter_reads_when_it_is_asked_and_prints_last_value_and_mean():
    class Value:
        n_read = 0

        def __float__(self):
            self.n_read += 1
            return 2.0

    meters, value = MetricMeter(), Value()
    meters.update({"loss": 1.0, "acc": torch.tensor(25.0, requires_grad=True) * 2})
    meters.update({"loss": value, "acc": 100})
    assert value.n_read == 0 and not meters.unread[0]["acc"].requires_grad  # which keeps no graph
    assert meters.read() == [{"loss": 1.0, "acc": 50.0}, {"loss": 2.0, "acc": 100.0}]
    assert meters.read() == [] and value.n_read == 1
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
