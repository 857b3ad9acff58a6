from __future__ import annotations

import re

import torch

from experiments.run.environment import commit, environment


def test_an_environment_names_versions_and_device():
    recorded = environment(torch.device("cpu"))
    assert recorded["packages"]["torch"] == torch.__version__
    assert recorded["device"] == "cpu"
    assert recorded["device_name"]


def test_a_commit_is_forty_digits_or_none():
    assert commit() is None or re.fullmatch(r"[0-9a-f]{40}\+?", commit())
