"""The picture of the README, from its computation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = r"(\S+?)"


def test_the_teleport_keeps_the_loss_and_reaches_the_largest_gradient(tmp_path):
    picture = tmp_path / "idea.png"
    command = [sys.executable, "scripts/draw_idea.py", "--write", picture]
    drawn = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = re.search(rf"loss {NUMBER} -> {NUMBER}, gradient norm {NUMBER} -> {NUMBER}\n", drawn.stdout).groups()
    # On x^2 + 9 y^2 = 100 the gradient (2 x, 18 y) is largest at x = 0, where its norm is 6 sqrt(100).
    assert [float(each) for each in said] == pytest.approx([100, 100, (16**2 + 36**2) ** 0.5, 60], rel=1e-5)
    ends = re.search(rf"after 10 steps: {NUMBER} without, {NUMBER} with", drawn.stdout).groups()
    # Each step of descent multiplies x by 1 - 2 rate and y by 1 - 18 rate.
    x, y = (1 - 0.06) ** 20, (1 - 0.54) ** 20
    assert [float(each) for each in ends] == pytest.approx([64 * x + 36 * y, 100 * y], rel=1e-4)
