from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_torchvision_imports_whole_and_not_before_it_is_needed():
    done = run(
        "import sys\n"
        "import experiments.data.registry\n"
        "late = ('torchvision', 'pandas', 'nltk', 'sklearn', 'pooch')\n"
        "assert not set(late) & set(sys.modules)\n"
        "from experiments.data.compat import torchvision\n"
        "first, second = torchvision(), torchvision()\n"
        "import torch, torchvision.models, torchvision.transforms.v2\n"
        "assert first is second is torchvision\n"
        "print(torchvision.models.resnet18()(torch.zeros(2, 3, 32, 32)).shape)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([2, 1000])"


def test_working_operators_are_left_as_they_are():
    """Operators that exist, as those of a compiled torchvision do, are not defined again."""
    done = run(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "for name in ('nms', 'qnms'):\n"
        "    library.define(name + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "library.impl('nms', lambda dets, scores, iou_threshold: dets.new_full((1,), 7), 'CPU')\n"
        "from experiments.data.compat import torchvision, _libraries\n"
        "torchvision()\n"
        "print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).item(), len(_libraries))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["7.0", "0"]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


def test_nothing_else_imports_torchvision():
    files = [path for folder in ("teleport", "experiments", "scripts") for path in (REPOSITORY / folder).rglob("*.py")]
    importers = [path.relative_to(REPOSITORY).as_posix() for path in files if "torchvision" in imported(path)]
    assert importers == ["experiments/data/compat.py"]
