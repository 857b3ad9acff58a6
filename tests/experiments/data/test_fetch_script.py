"""``scripts/fetch_data.py`` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "fetch_data.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_there_is_left_alone(tmp_path):
    np.savez(tmp_path / "mnist.npz", anything=1)
    done = run("digits", "smnist", "--root", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "digits: needs no file",
        f"smnist: is at {tmp_path / 'mnist.npz'} already; delete that to fetch it again",
    ]


def test_an_unknown_name_stops_before_anything_is_fetched(tmp_path):
    done = run("mnist", "minst", "--root", str(tmp_path / "root"))
    assert done.returncode == 2
    assert done.stderr.startswith("unknown data set 'minst' (did you mean 'mnist'?); known: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("place", ["argument", "environment"])
def test_no_network_is_one_sentence(tmp_path, place):
    dead = dict.fromkeys(("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9")
    if place == "argument":
        done = run("electricity", "digits", "--root", str(tmp_path), NO_PROXY="", no_proxy="", **dead)
    else:
        done = run("electricity", "digits", TELEPORT_DATA=str(tmp_path), NO_PROXY="", no_proxy="", **dead)
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line]
    assert str(tmp_path / "electricity" / "electricity.txt.gz") in said
    assert "digits: needs no file" in done.stdout  # the others go on
    assert list(tmp_path.iterdir()) == []
