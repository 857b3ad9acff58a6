"""Run tests against a mutant in a fork of this process, which has imported torch and nothing of ``teleport/``.

The fork finds the mutated module in place of the file, so the checkout stays as it is. Autograd runs in forks alone:
a process that has run it with threads must not be forked.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from scripts._mutation.population import Mutant

PLUGIN = "_hypothesis_pytestplugin"
PRELOADED = ("torch", "torch.func", "torch._dynamo", "torch.utils.checkpoint", "numpy", "scipy.optimize")
PRELOADED += ("scipy.sparse.csgraph", "hypothesis", "hypothesis.extra.numpy", "pandas", PLUGIN)
MEMORY = 12 * 2**30
NO_TEST_LEFT = 5
"""Exit code of pytest if no test is selected."""


@dataclass(frozen=True)
class Outcome:
    """What the tests said.

    Attributes:
        killed: whether one of them failed.
        by: the test that failed, or what else happened.
        tests: how many ran.
    """

    killed: bool
    by: str
    tests: int


class _MutatedLoader(SourceFileLoader):
    """Loads a module from given source, and writes no bytecode."""

    code = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.code, self.path, "exec", dont_inherit=True)


class _MutatedFinder:
    """Finds one module, the mutated one."""

    def __init__(self, root: Path, mutant: Mutant) -> None:
        parts = Path(mutant.file).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.package else parts)
        self.path, self.code = root / mutant.file, mutant.code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's, with a loader of the mutated source; None for every other."""
        if name != self.name:
            return None
        loader = _MutatedLoader(name, str(self.path))
        loader.code = self.code
        folders = [str(self.path.parent)] if self.package else None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=loader, submodule_search_locations=folders
        )


class _Selected:
    """A plugin of pytest that runs some tests in a given order and keeps the first failure."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.rank = {name: index for index, name in enumerate(tests)}
        self.ran: set[str] = set()
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests that the mutant has no more, such as those of a table's entry, are none that fail."""
        items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda item: self.rank[item.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of tests that cannot be imported fails, too."""
        if report.failed:
            self.failed = self.failed or f"import of {report.nodeid}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, and keep the first failure."""
        self.ran.add(report.nodeid)
        if report.failed:
            self.failed = self.failed or report.nodeid


def prepare() -> None:
    """Import once what every fork needs: one thread, no database of examples, no search for a smaller example."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import torch
    from hypothesis import HealthCheck, Phase, settings

    torch.set_num_threads(1)
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile(
        "mutation", database=None, deadline=None, phases=phases, suppress_health_check=list(HealthCheck)
    )
    settings.load_profile("mutation")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # to import plugins would take longer than most tests
    gc.freeze()  # what is shared with the forks is not visited by their collections


def run_tests(root: Path, tests: Sequence[str], mutant: Mutant | None, seconds: float) -> Outcome:
    """Run tests, until one fails or they have used so many seconds of processor time."""
    loaded = sorted(name for name in sys.modules if name.split(".")[0] in ("teleport", "tests"))
    if loaded:
        raise RuntimeError(f"the process to fork must not have imported '{loaded[0]}'")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(root, tests, mutant, seconds, writer)
    os.close(writer)
    answer = _wait(child, reader, 6 * seconds + 60)
    if not answer:
        return Outcome(True, "stopped at the limit of time, or crashed", 0)
    return Outcome(**json.loads(answer))


def _child(root: Path, tests: Sequence[str], mutant: Mutant | None, seconds: float, writer: int) -> None:
    """What the fork does; never returns."""
    with contextlib.suppress(BaseException):
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.chdir(root)
        sys.path.insert(0, str(root))
        if mutant is not None:
            sys.meta_path.insert(0, _MutatedFinder(root, mutant))  # type: ignore[arg-type]
        selected = _Selected(tests)
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", PLUGIN, "--hypothesis-seed=0", "--tb=no"]
        code = int(pytest.main([*options, *files], plugins=[selected]))
        killed = code not in (0, NO_TEST_LEFT)
        answer = {"killed": killed, "by": selected.failed or f"exit code {code}", "tests": len(selected.ran)}
        os.write(writer, json.dumps(answer).encode())
    os._exit(0)


def _wait(child: int, reader: int, seconds: float) -> bytes:
    """The child's answer; nothing if it died, or was stopped for it took longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        time.sleep(0.02)
        if time.monotonic() > deadline:
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a test has left behind
    with os.fdopen(reader, "rb") as stream:
        return stream.read()
