import logging
import re
import subprocess
import sys
import time

import pytest

from pipeline import logs
from pipeline.errors import StoreError


def test_lines_carry_run_and_tile(tmp_path):
    log = logging.getLogger("pipeline.somewhere")
    with logs.to_file(tmp_path / "logs" / "a.log", "run-7") as path:
        log.info("before")
        with logs.tile("r001c002"):
            log.warning("inside")
        log.debug("too fine")
    log.warning("after")
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(stamp + " INFO    run=run-7 tile=- pipeline.somewhere: before", lines[0])
    assert lines[1].endswith("WARNING run=run-7 tile=r001c002 pipeline.somewhere: inside")


def test_levels_and_handlers_are_as_before(tmp_path):
    logger = logging.getLogger("pipeline")
    before = logger.level, list(logger.handlers)
    with logs.to_file(tmp_path / "a.log", "x", logging.DEBUG):
        assert logger.isEnabledFor(logging.DEBUG)
    assert (logger.level, logger.handlers) == before


def test_a_record_made_elsewhere_keeps_its_tile(tmp_path):
    record = logging.LogRecord("pipeline.fuse", logging.INFO, "f", 1, "from a worker", None, None)
    record.tile = "r009c009"
    with logs.to_file(tmp_path / "a.log", "x") as path:
        logging.getLogger("pipeline.fuse").handle(record)
    assert "tile=r009c009" in path.read_text()


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"cannot write the log .*file/a\.log.*--log"),
        logs.to_file(tmp_path / "file" / "a.log", "x"),
    ):
        pass


SILENCED = """
import logging, sys
from pathlib import Path
import distributed
from distributed.utils import silence_logging_cmgr
from flows.console import quieten
from pipeline import logs

quieten(0)  # as every command does that is not asked to say more
with logs.to_file(Path(sys.argv[1]), "x"), silence_logging_cmgr(logging.ERROR):
    logging.getLogger("pipeline.job").info("still here")
    logging.getLogger("distributed.nanny").info("not wanted")
    logging.getLogger("distributed.nanny").warning("worker lost")
"""


def test_a_cluster_that_silences_its_logs_does_not_silence_ours(tmp_path):
    # a process of its own: loggers are global, and clusters of other tests leave theirs silent for good
    path = tmp_path / "a.log"
    done = subprocess.run(
        [sys.executable, "-c", SILENCED, str(path)], check=True, timeout=120, capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""
    written = path.read_text()
    assert "still here" in written
    assert "worker lost" in written
    assert "not wanted" not in written


def test_records_of_workers_arrive_with_their_tile(tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster) as client,
        logs.to_file(tmp_path / "a.log", "x") as path,
    ):
        logs.forward(client)
        client.submit(_speak, "r000c003", pure=False).result()
        for _ in range(100):
            if path.read_text():
                break
            time.sleep(0.05)
    assert "tile=r000c003 pipeline.fuse: hello" in path.read_text()


def _speak(name):
    with logs.tile(name):
        logging.getLogger("pipeline.fuse").info("hello")
