"""Damaged files of every kind: one sentence that names the file, and everything else goes on."""

from __future__ import annotations

import os

import pytest

from tests.experiments.damage import Places, try_all


@pytest.mark.slow
@pytest.mark.skipif("TELEPORT_LARGE" not in os.environ, reason="takes many minutes: set TELEPORT_LARGE=1")
def test_no_damaged_file_ends_in_a_traceback(tmp_path):
    counts = try_all(Places(tmp_path), flips=1, every=31)
    assert len(counts) == 8
    assert {kind: count.wrong for kind, count in counts.items() if count.wrong} == {}
    assert all(count.tried for count in counts.values())
