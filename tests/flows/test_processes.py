"""Background processes are ours by id, birth and token, and no others are touched."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import processes
from flows.processes import TOKEN, Process, ServiceError

SERVER = ["http.server", "--bind", "127.0.0.1", "0"]


@pytest.fixture
def start(tmp_path):
    """Start something harmless that lasts; ended after the test whatever happens."""
    begun = []

    def run(token="", **options):
        env = dict(os.environ) | ({TOKEN: token} if token else {})
        begun.append(processes.start("thing", SERVER, env=env, cwd=tmp_path, log=tmp_path / "log", **options))
        return begun[-1]

    yield run
    for process in begun:
        processes.stop([process], "none of these")


def gone(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_started_is_alive_and_stopped_is_not(start):
    process = start("token-1")
    assert process.alive
    assert os.getsid(process.pid) == process.pid, "it must survive the terminal it was started from"
    assert processes.stop([process], "token-1") == 1
    assert not process.alive
    assert processes.stop([process], "token-1") == 0


def test_a_process_of_another_birth_is_not_ours(start):
    process = start()
    stranger = Process("thing", process.pid, process.born - 60, "")
    assert not stranger.alive
    assert processes.stop([stranger], "no such token") == 0
    assert process.alive


def test_what_carries_the_token_is_ended_and_nothing_else(start):
    ours, other = start("token-2"), start("token-3")
    assert processes.stop([], "token-2") == 1
    assert gone(ours.pid)
    assert other.alive


def test_it_can_be_interrupted_though_the_starter_ignores_interrupts(start):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start()
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    assert gone(process.pid)


def test_a_tied_process_ends_with_its_starter_even_if_that_is_killed(tmp_path):
    code = (
        "import os, time\nfrom pathlib import Path\nfrom flows import processes\n"
        f"p = processes.start('t', {SERVER!r}, env=os.environ, cwd=Path('.'), log=Path('log'), tied=True)\n"
        "print(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    time.sleep(1.0)
    assert psutil.pid_exists(pid)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert gone(pid)


def test_a_tied_process_can_be_stopped(start):
    process = start(tied=True)
    assert processes.stop([process], "none") == 1
    assert not process.alive


def test_a_living_process_is_awaited_and_told_of(start, monkeypatch):
    process, heard, asked = start(), [], []
    monkeypatch.setattr(processes, "TELL", 0.3)
    processes.wait(lambda: len(asked) > 6 or asked.append(1), process, 30, say=heard.append)
    assert 2 <= len(heard) <= 4
    assert heard[0].startswith("the Prefect thing is alive but not ready after 0 s; ")
    assert "core" in heard[0]


def test_a_dead_process_fails_at_once_with_its_reason(tmp_path):
    log = tmp_path / "log"
    log.touch()
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"ended by itself after 0 s.*try again(?s:.*)\(log empty\)"):
        processes.wait(lambda: False, Process("thing", 999_999_999, 0.0, str(log)))
    assert time.monotonic() - began < 2


def test_patience_ends_with_the_load_and_a_remedy(start):
    with pytest.raises(ServiceError, match=r"still ran after \d s.*processes want.*less to do"):
        processes.wait(lambda: False, start(), 0.5)


def test_the_tail_of_a_log(tmp_path):
    (tmp_path / "log").write_text("\n".join(str(k) for k in range(50)))
    assert processes.tail(tmp_path / "log", 2) == "48\n49"
    assert processes.tail(Path("no-such-log")) == "(no log)"
