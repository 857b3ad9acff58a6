"""Check that a sweep with a failing run and two killed ones is right under every installed launcher.

    pip install -e '.[launchers]'
    python scripts/check_launchers.py                   # basic, machine.jobs, cores, submitit, ray_local, ray_cluster
    python scripts/check_launchers.py cores ray_local

Exit code, table, progress, how often each run is trained, the same sweep called twice at once, and a figure of such
runs that is made twice, one call after the other. ray_cluster starts two nodes on this machine. Prints the end of each
sweep's text; exits with 1 if one of them is wrong. A launcher that is not installed is wrong.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LAUNCHERS = {
    "basic": [],
    "machine.jobs": ["machine.jobs=2"],
    "cores": ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit"],
    "ray_local": ["hydra/launcher=ray_local", "+hydra.launcher.ray.init.num_cpus=2"],
    "ray_cluster": ["hydra/launcher=ray_cluster"],
}
SURVIVING = ("cores", "submitit", "ray_local", "ray_cluster")
"""Launchers under which a killed process costs its own run only."""

SMALL = ["data=digits", "data.train_samples=300", "data.test_samples=100", "training.epochs=1", "machine.threads=1"]
WATCHED = ["model=custom", "model.factory=tests.experiments.small:watched"]
"""A model whose process is killed in each training with seed 1 and in the first one with seed 2; none with seed 3."""

FIGURE = """# @package figure
defaults:
  - /schema/figure@_here_: figure
  - _self_
title: Runs that fail and processes that are killed
claim: none
runs:
  - {data: digits, model: custom, "model.factory": "tests.experiments.small:watched", teleport: none, seed: SEEDS}
draw: {name: curves, x: epoch}
"""

SECONDS = 1200
"""The longest that a sweep may take."""


def sweep(launcher: str, runs: Path, seeds: str, said: Path) -> subprocess.Popen[bytes]:
    """Start a sweep; what it says goes to the file ``said``."""
    return start(launcher, runs, ["-m", *WATCHED, f"seed={seeds}"], said)


def start(launcher: str, runs: Path, words: list[str], said: Path) -> subprocess.Popen[bytes]:
    """Start ``run.py`` with ``words`` under a launcher."""
    runs.mkdir(exist_ok=True)
    overrides = [*SMALL, f"machine.runs={runs}", *LAUNCHERS[launcher]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRAININGS": str(runs / "trainings")}
    if launcher == "ray_cluster":  # whose workers have the environment of their node
        overrides.append(f"+hydra.launcher.ray.init.runtime_env.env_vars.TRAININGS={runs / 'trainings'}")
    with said.open("wb") as file:
        command = [sys.executable, "run.py", *words, *overrides]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)


def rows_of(runs: Path) -> list[dict[str, str]]:
    """The tables of all sweeps, one after the other."""
    found = []
    for path in sorted((runs / "sweeps").glob("*.csv")):
        if not path.stem.endswith("-seeds"):
            with path.open() as file:
                found += list(csv.DictReader(file))
    return found


def check(launcher: str, runs: Path) -> list[str]:
    """What is wrong with the sweep under ``launcher``."""
    seeds, said = "0,1,2,3,4" if launcher in SURVIVING else "0,3,4", runs / "said"
    started = time.monotonic()
    code = sweep(launcher, runs, seeds, said).wait(SECONDS)
    text = said.read_text()
    print(
        f"== {launcher}: exit code {code} after {time.monotonic() - started:.0f} s", *text.splitlines()[-16:], sep="\n"
    )
    errors = {f"seed={seed}": "" for seed in seeds.split(",")} | {"seed=3": "no model with seed 3"}
    if launcher in SURVIVING:
        errors["seed=1"] = "its process ended before the run did, twice"
    rows = {
        word: row["error"] for row in rows_of(runs) for word in row["overrides"].split() if word.startswith("seed=")
    }
    wrong = [] if code == 1 else [f"exit code {code}, not 1", text[-2000:]]
    if rows.keys() != errors.keys() or any(bool(rows[key]) != bool(errors[key]) for key in rows):
        wrong.append(f"the table has {rows}")
    wrong += [f"{key} says {rows[key]}" for key in rows if errors.get(key, "") not in rows[key]]
    failed = sum(map(bool, errors.values()))
    if f"{len(errors)} runs, {failed} failed" not in text:
        wrong.append("the table is not printed")
    if text.count("no model with seed 3") < 2:  # as it fails, and in the table
        wrong.append("the failure is not told of")
    return wrong + trainings(runs, launcher)


def trainings(runs: Path, launcher: str) -> list[str]:
    """Which runs were trained more often than they should; under joblib a killed process ends its neighbour's too."""
    most = {"1": 2, "2": 3 if launcher == "cores" else 2} | ({"0": 2, "4": 2} if launcher == "cores" else {})
    trained = runs / "trainings"
    counted = Counter(trained.read_text().split() if trained.exists() else [])
    return [f"seed {seed} was trained {count} times" for seed, count in counted.items() if count > most.get(seed, 1)]


def check_figure(launcher: str, folder: Path) -> list[str]:
    """What is wrong with a figure of a failing run and, where it may be, two killed ones, which is called for twice."""
    seeds = "[0, 1, 2, 3, 4]" if launcher in SURVIVING else "[0, 3, 4]"
    runs, conf = folder / "runs", folder / "conf"
    path = conf / "figure" / "own" / "check.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FIGURE.replace("SEEDS", seeds))
    missing, wrong = ("2 of 5" if launcher in SURVIVING else "1 of 3"), []
    for call in ("the first call", "the second call"):
        said = folder / call
        words = ["-cd", str(conf), "figure=own/check", f"machine.results={folder / 'results'}"]
        code = start(launcher, runs, words, said).wait(SECONDS)
        text = said.read_text()
        print(f"== {launcher}, a figure, {call}: exit code {code}", *text.splitlines()[-4:], sep="\n")
        if code != 0 or f"{missing} runs are missing in the figure" not in text:
            wrong.append(
                f"{call} for a figure ends with {code} and does not say that {missing} runs are missing: {text[-2000:]}"
            )
    counted = Counter((runs / "trainings").read_text().split())
    most = {"0": 2, "1": 4, "2": 3, "4": 2} if launcher == "cores" else {"1": 4, "2": 2}
    wrong += [f"seed {seed} of a figure was trained {n} times" for seed, n in counted.items() if n > most.get(seed, 1)]
    return wrong


def check_two(launcher: str, runs: Path) -> list[str]:
    """What is wrong if the same sweep is called twice at once: no run may be trained twice, none may fail."""
    both = [sweep(launcher, runs, "0,4,5", runs / f"said{number}") for number in range(2)]
    codes = [one.wait(SECONDS) for one in both]
    trained, rows = runs / "trainings", rows_of(runs)
    counted = Counter(trained.read_text().split() if trained.exists() else [])
    print(f"== {launcher}, twice at once: exit codes {codes}, trainings per seed {dict(counted)}, {len(rows)} rows")
    said = [(runs / f"said{number}").read_text()[-2000:] for number in range(2)]
    wrong = [] if codes == [0, 0] else [f"exit codes {codes}", *said]
    wrong += [] if counted == {"0": 1, "4": 1, "5": 1} else [f"trainings per seed {dict(counted)}"]
    return wrong + [row["error"] for row in rows if row["error"]] + ([] if len(rows) == 6 else [f"{len(rows)} rows"])


@contextmanager
def cluster(needed: bool, folder: Path) -> Iterator[None]:
    """Two nodes of Ray with one core each, started in another folder than the sweep's; they end with the block."""
    if not needed:
        yield
        return
    program = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    head = ["--head", "--port=6399", "--include-dashboard=false"]
    nodes = []
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300", "RAY_ADDRESS": "127.0.0.1:6399"}
    try:
        for which in (head, ["--address=127.0.0.1:6399"]):
            with (folder / f"node{len(nodes)}").open("wb") as said:
                nodes.append(subprocess.Popen([*program, *which], cwd=folder, stdout=said, stderr=said))
            until = time.monotonic() + 300
            while (
                b"terminated by a signal" not in (folder / f"node{len(nodes) - 1}").read_bytes()
                and time.monotonic() < until
            ):
                time.sleep(0.5)
        yield
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.wait(60)


def main(arguments: list[str]) -> int:
    """Check the launchers that are named, or all; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("launchers", nargs="*", metavar="LAUNCHER", help=f"some of: {', '.join(LAUNCHERS)} (all)")
    named = parser.parse_args(arguments).launchers
    for launcher in named:
        if launcher not in LAUNCHERS:
            parser.error(f"unknown launcher '{launcher}'; there are {', '.join(LAUNCHERS)}")
    failed = False
    for launcher in named or list(LAUNCHERS):
        with tempfile.TemporaryDirectory() as folder:
            runs, others, nodes, figure = (Path(folder) / name for name in ("runs", "others", "nodes", "figure"))
            for each in (runs, others, nodes, figure):
                each.mkdir()
            with cluster(launcher == "ray_cluster", nodes):
                wrong = check(launcher, runs) + check_two(launcher, others) + check_figure(launcher, figure)
        for sentence in wrong:
            print(f"WRONG under {launcher}: {sentence}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
