"""Every file of examples/ runs as it stands, is short, and prints what it promises."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
LINES = 60
RUN = """
import runpy, sys
from experiments.data.compat import torchvision
torchvision()  # which a CPU build of torch cannot import as it is, and other packages import
runpy.run_path(sys.argv[1], run_name="__main__")
"""
NEEDED = {"lightning_callback": "lightning", "hugging_face_trainer": "accelerate", "save_teleported": "transformers"}


def printed(name, tmp_path):
    if name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None:
        pytest.skip(f"needs {NEEDED[name]}: pip install -e '.[examples]'")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", RUN, str(FOLDER / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern, text):
    return [tuple(map(float, found)) for found in re.findall(pattern, text)]


def test_examples_are_short_and_all_of_them_are_tested():
    files = sorted(FOLDER.glob("*.py"))
    lengths = {path.stem: len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}
    own = Path(__file__).read_text()
    tested = {*re.findall(r'printed\("(\w+)"', own), *NEEDED}
    assert {path.stem for path in files} == tested


def test_a_plain_loop_tells_what_a_teleport_gains_and_costs(tmp_path):
    said = printed("plain_loop", tmp_path)
    losses = dict(re.findall(r"^(.+?)\s+loss ([\d.]+) after", said, re.MULTILINE))
    assert list(losses) == ["no teleport", "null space", "random move", "no teleport, rate doubled"]
    assert float(losses["null space"]) < float(losses["no teleport"])
    ((before, after), _) = numbers(r"norm ([\d.]+) -> ([\d.]+)", said)
    assert 1.8 < after / before < 2.2


@pytest.mark.slow
def test_a_method_of_ones_own_keeps_the_loss_and_raises_the_norm(tmp_path):
    said = printed("own_method", tmp_path)
    assert [line.split()[0] for line in said.splitlines()] == ["BestOfRandomBases", "Rescaling", "NullSpace"]
    for loss, same, before, after in numbers(r"loss ([\d.]+) -> ([\d.]+)  norm ([\d.]+) -> ([\d.]+)", said):
        assert same == pytest.approx(loss, abs=2e-5)
        assert after > before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning_callback", "hugging_face_trainer"])
def test_a_callback_teleports_before_both_epochs(name, tmp_path):
    said = printed(name, tmp_path)
    pattern = r"epoch (\d): nullspace: \d+ steps.*\n  loss (\S+) -> (\S+); gradient norm (\S+) -> (\S+)"
    events = re.findall(pattern, said)
    assert [epoch for epoch, *_ in events] == ["0", "1"]
    for _, before, after, norm, larger in events:
        assert float(after) == pytest.approx(float(before), rel=1e-4)
        assert 1.5 < float(larger) / float(norm) < 2.1


@pytest.mark.slow
def test_a_saved_transformer_is_another_one_with_the_same_outputs(tmp_path):
    said = printed("save_teleported", tmp_path)
    ((moved, all_of_them),) = numbers(r"(\d+) of (\d+) parameters have other values", said)
    assert 0 < moved <= all_of_them
    ((difference,),) = [(float(found),) for found in re.findall(r"largest relative difference (\S+)", said)]
    assert difference < 1e-5


@pytest.mark.slow
def test_a_sweep_becomes_a_table_of_its_eight_runs(tmp_path):
    said = printed("sweep_to_table", tmp_path)
    for optimizer, teleport in (("adam", "gentle"), ("sgd", "gentle")):
        assert re.search(rf"^{optimizer}\s+{teleport}|^\s+{teleport}\s", said, re.MULTILINE)
    growth = numbers(r"digits-mlp-\w+-gentle-s\d-\w+\s+([\d.]+)\s+([\d.]+)", said)
    assert len(growth) == 4
    assert all(grown > 1.5 and steps >= 1 for grown, steps in growth)


@pytest.mark.slow
def test_two_matched_trainings_have_a_smaller_barrier_and_a_better_mean(tmp_path):
    said = printed("match_two_models", tmp_path)
    before, *matched = numbers(r"barrier ([\d.]+), accuracy of the mean of both ([\d.]+)", said)
    assert len(matched) == 2
    for barrier, right in matched:
        assert barrier < before[0] / 4
        assert right > before[1] + 0.05
