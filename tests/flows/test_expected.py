"""An error that a user is expected to read is logged in one line, any other with all that helps to find it."""

import logging

import pytest

from flows.expected import LOGGERS, InWords, keep_in_words
from pipeline.errors import StoreError


@pytest.fixture
def heard(caplog):
    keep_in_words()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(caplog.handler)
    yield caplog
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(caplog.handler)


def fail(logger, error, level=logging.INFO):
    logger.setLevel(level)
    try:
        raise error
    except Exception:
        logger.exception("Encountered exception during execution")


@pytest.mark.parametrize("name", LOGGERS)
def test_a_traceback_of_ours_is_left_out_and_others_stay(heard, name):
    logger = logging.getLogger(name)
    before = logger.level
    try:
        fail(logger, StoreError("no room"))
        assert "no room" not in heard.text
        fail(logger, StoreError("no room"), logging.DEBUG)
        assert "StoreError: no room" in heard.text
        fail(logger, KeyError("nobody foresaw"))
        assert "KeyError: 'nobody foresaw'" in heard.text
        logger.error("StoreError: in one line")
        assert "StoreError: in one line" in heard.text
    finally:
        logger.setLevel(before)


def test_twice_does_no_harm():
    keep_in_words()
    keep_in_words()
    counts = [sum(isinstance(known, InWords) for known in logging.getLogger(name).filters) for name in LOGGERS]
    assert counts == [1] * len(LOGGERS)
