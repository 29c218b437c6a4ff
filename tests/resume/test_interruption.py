"""Ctrl-C and SIGTERM: to a run, to all processes of one, to workers, to the scripts."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import train
from engine.features.reader import FeatureReader
from engine.interruption import Interrupted, finishing, interruptible, leave_signals_to_parent, raise_if_asked
from engine.trainer import TrainerX
from launch import plan as job_runs
from launch import workers as jobs
from tests.support.ranks import run_ranks
from tests.support.script_calls import OWN_ENVIRONMENT, ROOT, fake_python

FORK = multiprocessing.get_context("fork")  # nothing is imported anew
SIGNALS = [pytest.param(signal.SIGINT, 130, id="Ctrl-C"), pytest.param(signal.SIGTERM, 143, id="SIGTERM")]


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number, code", SIGNALS)
class TestSignals:
    def test_anywhere_it_ends_the_run_at_once(self, number, code):
        with pytest.raises(Interrupted) as caught, interruptible():
            send(number)
            pytest.fail("the signal was not heard")
        assert caught.value.exit_code == code
        name = signal.Signals(number).name
        assert str(caught.value) == f"Interrupted by {name}. The same command goes on from here."

    def test_what_is_begun_is_ended(self, number, code):
        done = []
        with pytest.raises(Interrupted) as caught, interruptible(), finishing():
            with finishing():
                send(number)
                done.append("within both")
            done.append("within the outer one")
        assert done == ["within both", "within the outer one"]
        assert caught.value.exit_code == code

    def test_whoever_finishes_may_look_before(self, number, code):
        with pytest.raises(Interrupted), interruptible(), finishing():
            raise_if_asked()
            send(number)
            raise_if_asked()
            pytest.fail("nobody looked")

    def test_even_where_it_was_ignored_and_then_it_is_again(self, number, code):
        before = signal.signal(number, signal.SIG_IGN)
        try:
            with pytest.raises(Interrupted), interruptible():
                send(number)
            assert signal.getsignal(number) == signal.SIG_IGN
            send(number)
        finally:
            signal.signal(number, before)

    def test_one_request_may_come_twice_a_second_one_ends_the_process(self, number, code, monkeypatch):
        codes, now_s = [], time.monotonic()
        monkeypatch.setattr(os, "_exit", codes.append)
        with pytest.raises(Interrupted), interruptible(), finishing():
            send(number)
            send(number)
            send(signal.SIGTERM)
            assert codes == []
            monkeypatch.setattr(time, "monotonic", lambda: now_s + 5)
            send(number)
            assert codes == [code]

    @pytest.mark.parametrize("flags", [("--eval-only", "--trainer=ZeroshotCLIP"), ("--trainer=LinearProbe",)])
    def test_train_says_what_starts_over(self, number, code, flags, argv, monkeypatch, capsys):
        """In the midst of what reads the images, for a test and for a fit."""
        monkeypatch.setattr(FeatureReader, "read", lambda *_, **__: send(number))
        words = argv("run")
        first_pair = words.index("USE_CUDA")
        assert train.main([*words[:first_pair], *flags, *words[first_pair:]]) == code
        said = f"Interrupted by {signal.Signals(number).name}. The same command starts over.\n"
        assert capsys.readouterr().err.endswith(said)


def test_in_another_thread_nothing_is_changed():
    before, within = signal.getsignal(signal.SIGTERM), []

    def look():
        with interruptible():
            within.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert within == [before]


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        time.sleep(0.3 * index)
        return os.getpid()


def test_processes_of_a_loader_leave_signals_to_their_parent():
    """A batch comes although its process gets both signals from elsewhere; its parent's own signal ends it."""
    batches = iter(DataLoader(Slow(), num_workers=1, worker_init_fn=leave_signals_to_parent))
    pid = int(next(batches))
    for name in ("INT", "TERM"):
        subprocess.run(["kill", "-s", name, str(pid)], check=True)
    assert int(next(batches)) == pid
    [worker] = batches._workers
    batches = None

    is_deaf = FORK.Event()
    process = FORK.Process(target=lambda: (leave_signals_to_parent(0), is_deaf.set(), time.sleep(60)))
    process.start()
    assert is_deaf.wait(20)
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    worker.join(20)
    assert not worker.is_alive()


def what_is_left(folder):
    """What was learned, and the results that depend on nothing but that."""
    results = json.loads((folder / "results.json").read_text())
    ctx = torch.load(folder / "prompt_learner/model.pth.tar-3", weights_only=True)["state_dict"]["ctx"]
    return ctx.tolist(), {name: results[name] for name in ("accuracy", "macro_f1", "correct", "epoch")}


def after_steps(n, act):
    """Has `act` called at the end of the n-th step that this process does."""
    save_if_due, done = TrainerX.save_if_due, []

    def watched(self):
        done.append(1)
        if len(done) == n:
            act()
        save_if_due(self)

    TrainerX.save_if_due = watched  # for good: the process ends with the run


def test_a_signal_to_all_processes_of_a_run(argv, tmp_path):
    """As a terminal sends it: the loader's process too, which works for a run that saves and goes on later."""

    def call(name, number=None):
        torch.set_num_threads(1)  # the threads of the process that was forked are not here
        os.setsid()
        sys.stdout, sys.stderr = (open(tmp_path / f"{name}.{kind}", "a", buffering=1) for kind in ("out", "err"))
        if number:
            after_steps(4, lambda: os.killpg(0, number))  # in the second epoch
        sys.exit(train.main(argv(name)))

    def exit_code(*args):
        process = FORK.Process(target=call, args=args)
        process.start()
        process.join(120)
        return process.exitcode

    assert exit_code("alone") == 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        name = signal.Signals(number).name
        assert exit_code(name, number) == code
        said = (tmp_path / f"{name}.err").read_text()
        assert said == f"Interrupted by {name}. The same command goes on from here.\n"
        assert exit_code(name) == 0
        log = (tmp_path / name / "log.txt").read_text()
        assert "Interrupted after epoch 1, batch 1\n" in log and "Resume after epoch 1, batch 1 from" in log
        assert what_is_left(tmp_path / name) == what_is_left(tmp_path / "alone")
        assert not list((tmp_path / name).glob("resume*"))


def test_a_signal_to_one_of_several_ranks_stops_all_after_the_same_step(argv, tmp_path):
    def work(rank, name, stops):
        if stops and rank == 1:
            after_steps(3, lambda: send(signal.SIGTERM))
        sys.exit(train.main(argv(name)))

    for name, stops, codes in (("alone", False, [0, 0]), ("stopped", True, [143, 143]), ("stopped", False, [0, 0])):
        ended = run_ranks(2, partial(work, name=name, stops=stops), tmp_path / f"said {name} {stops}")
        assert [code for code, _ in ended] == codes
    assert "Resume after epoch 1, batch 1 from" in (tmp_path / "stopped/log.txt").read_text()
    assert what_is_left(tmp_path / "stopped") == what_is_left(tmp_path / "alone")


PROGRAM = """
import os, pathlib, time
from engine.interruption import Interrupted, finishing, interruptible, is_asked
def main(argv):
    target = pathlib.Path(argv[0])
    try:
        with interruptible(), finishing():
            target.with_suffix(".pid").write_text(str(os.getpid()))
            until_s = time.monotonic() + 60
            while time.monotonic() < until_s and not is_asked():
                time.sleep(0.01)
            time.sleep(0.2)
            target.write_text("saved")
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes jobs of a small program, in forked processes."""
    monkeypatch.setattr(jobs, "CONTEXT", FORK)
    (tmp_path / "program_to_stop.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: jobs.Job("", "program_to_stop", (str(tmp_path / name),), tmp_path / name)


def wait_for(condition, time_s=60):
    deadline_s = time.monotonic() + time_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_there(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it may end while its file is read
        return False


def started(tmp_path, *names):
    """The processes of these jobs, once they have begun."""
    files = [tmp_path / f"{name}.pid" for name in names]
    wait_for(lambda: all(file.is_file() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize("number, code", SIGNALS)
def test_workers_save_before_they_end(make, tmp_path, number, code):
    def sweep():
        os.setsid()
        sys.exit(job_runs.until_interrupted(lambda: len(list(jobs.finish_all([make("a"), make("b")], 2)))))

    process = FORK.Process(target=sweep)
    process.start()
    pids = started(tmp_path, "a", "b")
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    assert [(tmp_path / name).read_text() for name in "ab"] == ["saved", "saved"]
    assert not any(map(is_there, pids))


def test_a_worker_whose_parent_is_killed_ends(make, tmp_path):
    process = FORK.Process(target=lambda: list(jobs.finish_all([make("a")], 1)))
    process.start()
    [pid] = started(tmp_path, "a")
    process.kill()
    process.join()
    wait_for(lambda: not is_there(pid))
    assert not (tmp_path / "a").exists()


def test_a_worker_that_is_told_to_end_fails_its_job(make, tmp_path):
    threading.Thread(target=lambda: os.kill(started(tmp_path, "a")[0], signal.SIGTERM), daemon=True).start()
    [(_, error, _)] = jobs.finish_all([make("a")], 1)
    assert error.startswith("The process was ended from outside (exit code 143).")
    assert (tmp_path / "a").read_text() == "saved"


class TestScripts:
    ARGUMENTS = "caltech101 rn50_ep50 end 16 1 False".split()

    def start(self, tmp_path, body):
        environment = {name: value for name, value in os.environ.items() if name not in OWN_ENVIRONMENT}
        environment |= {"PYTHON": fake_python(tmp_path, body), "OUTPUT": str(tmp_path / "out"), "PLACE": str(tmp_path)}
        command = ["bash", "scripts/coop/main.sh", *self.ARGUMENTS]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)

    @pytest.mark.parametrize("code", [130, 143])
    def test_an_interrupted_run_ends_the_script_and_no_other_seed_begins(self, tmp_path, code):
        out, err = (process := self.start(tmp_path, f"echo $5; exit {code}")).communicate(timeout=20)
        assert (process.returncode, out, err) == (code, "1\n", "")

    @pytest.mark.parametrize("n_signals", [1, 2])
    def test_a_signal_to_the_script_reaches_the_run_and_is_waited_for(self, tmp_path, n_signals):
        body = """trap 'echo heard; sleep 0.5; echo saved; exit 143' TERM
            touch "$PLACE/begun"; while true; do sleep 0.05; done"""
        process = self.start(tmp_path, body)
        wait_for((tmp_path / "begun").exists)
        for _ in range(n_signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out.splitlines()[-1], err) == (143, "saved", "")

    def test_ctrl_c_at_a_terminal(self, tmp_path):
        """It reaches the script, and the run, which bash has made deaf to it and which listens nevertheless."""
        program = tmp_path / "program.py"
        program.write_text(
            "import os, pathlib, signal, time\n"
            "heard = []\n"  # from the terminal, and once more from the script
            "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\n"
            "pathlib.Path(os.environ['PLACE'], 'begun').touch()\n"
            "while not heard:\n"
            "    time.sleep(0.01)\n"
            "print('saved', flush=True)\n"
            "os._exit(130)\n"
        )
        process = self.start(tmp_path, f'exec "{sys.executable}" "{program}"')
        wait_for((tmp_path / "begun").exists)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (130, "saved\n", "")


def test_ctrl_c_while_train_py_imports():
    """No traceback; as for every program that a signal ends, the code is its number."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "train.py"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "numpy" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in err
