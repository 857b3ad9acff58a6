"""What no test leaves behind for the next one in its process."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def log_as_before():
    """Commands that run within a test send the log to its captured output, which ends with it."""
    log = logging.getLogger("experiments")
    handlers, level = log.handlers, log.level
    yield
    log.handlers = handlers
    log.setLevel(level)
