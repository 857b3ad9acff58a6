"""The README and the pages under docs/ work as they stand: examples, command lines, the table of options, links."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch import nn

from experiments.configuration.config import register
from experiments.configuration.options import options
from teleport import ChangeOfBasis, NullSpace
from teleport._quiver.rules import table
from teleport._tracing import linear_uses as views

ROOT = Path(__file__).parents[1]
SITE = sorted((ROOT / "docs/site/library").rglob("*.md"))
PAGES = {
    str(page.relative_to(ROOT)): page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *SITE]
}
TEXT = "\n".join(PAGES.values())
COMMANDS = sorted({line.strip() for line in TEXT.splitlines() if line.startswith("    ")})
BLOCKS = {page: re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) for page, text in PAGES.items()}
EXAMPLES = [code for page, codes in BLOCKS.items() if "site/" not in page for code in codes]
SESSIONS = {page: codes for page, codes in BLOCKS.items() if "site/" in page and codes}
LINKS = [(page, target) for page in PAGES for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page])]


def of(program: str) -> list[str]:
    return [line for line in COMMANDS if line.startswith(program)]


@pytest.fixture(autouse=True)
def own_registries(monkeypatch):
    """What an example registers is forgotten after it."""
    monkeypatch.setattr(views, "_REGISTRY", dict(views._REGISTRY))
    monkeypatch.setattr(table, "RULES", dict(table.RULES))


def test_there_is_something_to_check():
    assert len(EXAMPLES) >= 3
    assert len(SESSIONS) >= 3
    assert len(of("python run.py")) >= 5
    assert len(of("make ")) >= 4


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.strip().splitlines()[-1].strip())
def test_examples_run(example):
    scope = {"__name__": "readme"}
    exec(compile(example, "README.md", "exec"), scope)
    assert len(scope) > 2  # it defined something, and got to its end


@pytest.mark.parametrize("page", SESSIONS)
def test_the_blocks_of_a_page_of_the_site_run_as_one_session(page):
    scope = {"__name__": "page"}
    for code in SESSIONS[page]:
        exec(compile(code, page, "exec"), scope)
    assert len(scope) > 2


def test_teleporting_raises_the_gradient_norm_and_keeps_the_loss():
    scope: dict = {"__name__": "readme"}
    exec(compile(EXAMPLES[0], "README.md", "exec"), scope)
    report, model, loss_fn = scope["report"], scope["model"], scope["loss_fn"]
    assert scope["step"] == 3 * len(scope["batches"])
    assert not report.no_op
    first = report.batches[0]
    assert first.gradient_norm_after > 1.5 * first.gradient_norm_before
    for batch in report.batches:
        assert batch.loss_after == pytest.approx(batch.loss_before, rel=1e-3)
    assert loss_fn(model, scope["batches"][0]).isfinite()


def test_own_model_fits_the_digits():
    from experiments.data.registry import build_task

    scope: dict = {"__name__": "readme"}
    exec(compile(next(code for code in EXAMPLES if "def wide" in code), "README.md", "exec"), scope)
    with configurations():
        task = build_task(compose("config", ["data=digits"]).data, "cpu")
    inputs, targets = task.train.batch(torch.arange(4))
    assert task.loss(scope["wide"](task.spec)(inputs), targets).isfinite()


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 64) / 8)

    def forward(self, inputs):
        return torch.einsum("bi,oi->bo", inputs, self.weight)


def test_own_layer_moves_once_it_has_a_view():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), Einsum()).double()
    inputs, targets = torch.randn(16, 10, dtype=torch.float64), torch.randint(8, (16,))

    def loss_fn(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def teleport():
        layers = NullSpace(lr=1.0)(model, [(inputs, targets)], loss_fn).layers
        return next(layer for layer in layers if layer.name == "2.weight")

    assert "einsum" in teleport().reason
    exec(compile(next(code for code in EXAMPLES if "einsum_view" in code), "README.md", "exec"), {})
    before = model(inputs)
    assert teleport().relative_change > 1e-6
    torch.testing.assert_close(model(inputs), before, rtol=1e-10, atol=1e-10)


class Differences(nn.Module):
    def __init__(self):
        super().__init__()
        self.lower, self.upper = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        return self.upper(torch.diff(torch.relu(self.lower(inputs)), dim=1))


def test_own_rule_frees_channels():
    torch.manual_seed(0)
    model, inputs = Differences().double(), torch.randn(2, 5, 4, dtype=torch.float64)
    before = model(inputs)
    assert ChangeOfBasis()(model, [inputs]).channels == (0, 0, 11)
    exec(compile(next(code for code in EXAMPLES if "diff_rule" in code), "README.md", "exec"), {})
    assert ChangeOfBasis()(model, [inputs]).channels == (8, 0, 3)
    torch.testing.assert_close(model(inputs), before, rtol=1e-10, atol=1e-10)


def configurations():
    register()
    return initialize_config_dir(str(ROOT / "conf"), version_base="1.3")


def each_value(overrides: list[str]) -> list[list[str]]:
    """Jobs of a sweep, as few as have each value of it once or more."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [
        [f"{one.key_or_group}={value}" for value in one.sweep_string_iterator()] if one.is_sweep_override() else [text]
        for one, text in zip(parsed, overrides, strict=True)
    ]
    return [[values[number % len(values)] for values in choices] for number in range(max(map(len, choices), default=1))]


@pytest.mark.parametrize("line", of("python run.py"))
def test_command_lines_compose(line):
    words = [word for word in shlex.split(line, comments=True)[2:] if word != "-m"]
    overrides = [word for word in words if not word.startswith("hydra")]  # of plugins that may not be installed
    with configurations():
        for job in each_value(overrides):
            config = compose("config", job)
            for override in job:
                key, value = override.lstrip("+").split("=", 1)
                if "." in key:
                    assert str(at(config, key)).replace(" ", "") == value


def at(config, key):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("line", of("make "))
def test_make_targets_exist(line):
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # of a `make test` that this runs in
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    command = shlex.split(line, comments=True)
    asked = subprocess.run(
        [command[0], "--dry-run", *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr


def test_the_table_lists_each_choice():
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", PAGES["docs/experiments.md"], flags=re.MULTILINE)
    assert {group: sorted(re.findall(r"`([^`]+)`", names)) for group, names in rows} == options()


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{page}-{target}" for page, target in LINKS])
def test_links_lead_somewhere(page, target):
    assert ((ROOT / page).parent / target).exists()
