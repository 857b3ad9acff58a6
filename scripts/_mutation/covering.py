"""Which tests run which line of ``teleport/``: coverage.py's contexts, collected once per state of the sources."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from coverage import CoverageData

TESTS = "tests/teleport"
SELECTED = "not slow"


class Durations:
    """A plugin of pytest that sums the seconds of each test."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the seconds of set-up, call and tear-down."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


class CoveringTests:
    """The tests of each line, from what ``collect`` wrote."""

    def __init__(self, collected: dict[str, Any]) -> None:
        self.seconds: dict[str, float] = collected["seconds"]
        self._names = list(self.seconds)
        self._lines: dict[str, dict[str, list[int]]] = collected["lines"]

    def of(self, file: str, lines: Sequence[int]) -> list[str]:
        """Tests that run a line, those of the file's own folder first, the shortest first.

        A line that runs at import alone (a table, a signature, a decorator) is given the tests that run any line of the
        file.
        """
        known = self._lines.get(file, {})
        found = {test for line in lines for test in known.get(str(line), [])}
        found = found or {test for tests in known.values() for test in tests}
        own = "/".join([TESTS, *(part.removeprefix("_") for part in PurePosixPath(file).parent.parts[1:])]) + "/"
        names = [self._names[test] for test in found]
        return sorted(names, key=lambda name: (not name.startswith(own), self.seconds[name], name))


def covering_tests(root: Path, cache: Path) -> CoveringTests:
    """Read the map of the present sources and tests, or collect it.

    Raises:
        RuntimeError: a test fails without any mutation.
    """
    digest = hashlib.sha256()
    for file in sorted([*(root / "teleport").rglob("*.py"), *(root / "tests").rglob("*.py")]):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    cached = cache / f"covering-{digest.hexdigest()[:16]}.json"
    if not cached.exists():
        print("Collecting which tests run which line ...", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if child == 0:
            os._exit(_collect(root, cached))
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the tests must pass without a mutation; their output is above")
    return CoveringTests(json.loads(cached.read_text()))


def _collect(root: Path, cached: Path) -> int:
    """Run the tests under coverage in this process; pytest's exit code."""
    os.chdir(root)
    sys.path.insert(0, str(root))
    data_file = cached.with_suffix(".coverage")
    os.environ["COVERAGE_FILE"] = str(data_file)
    durations = Durations()
    options = ["-p", "pytest_cov", "--cov=teleport", "--cov-context=test", "--cov-report=", "-p", "no:cacheprovider"]
    code = int(pytest.main(["-q", "-x", "-m", SELECTED, *options, TESTS], plugins=[durations]))
    if code == 0:
        partial = cached.with_suffix(".partial")
        partial.write_text(json.dumps({"seconds": durations.seconds, "lines": _lines(root, data_file, durations)}))
        partial.replace(cached)
    return code


def _lines(root: Path, data_file: Path, durations: Durations) -> dict[str, dict[int, list[int]]]:
    """File -> line -> indices of its tests."""
    number = {name: index for index, name in enumerate(durations.seconds)}
    data = CoverageData(str(data_file))
    data.read()
    found: dict[str, dict[int, list[int]]] = {}
    for file in data.measured_files():
        named = str(Path(file).relative_to(root))
        found[named] = {}
        for line, contexts in data.contexts_by_lineno(file).items():
            tests = {number[context.rpartition("|")[0]] for context in contexts if context}
            if tests:
                found[named][line] = sorted(tests)
    return found
