"""The command line: what it says, what it leaves behind, and that a killed run ends as one that was not."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from experiments.command_line import job
from experiments.configuration.config import register
from experiments.configuration.identity import run_folder
from experiments.configuration.validate import resolve
from tests.commands import finished, started
from tests.experiments.small import SMALL, SMALL_TELEPORT, composed

ROOT = Path(__file__).parent.parent

MISTAKES = {
    "optimizer.lrr=1": "unknown key of optimizer 'lrr' (did you mean 'lr'?); known: name, lr,",
    "optimizer.lr=abc": "'optimizer.lr' must be a number, not 'abc'",
    "seed=1.5": "'seed' must be a whole number, not '1.5'",
    "model.widths=3": "'model.widths' must be a list in brackets, as in model.widths=[1,2]",
    "training.epochs=null": "'training.epochs' must have a value, not null",
    "data=mnits": "unknown option of data 'mnits' (did you mean 'mnist'?); known: booth,",
    "experiment=nullspace/mlp_mnits": "did you mean 'nullspace/mlp_mnist'?",
    "figure=nullspace/figure8": "unknown option of figure 'nullspace/figure8' (did you mean 'nullspace/fig8'?)",
    "dataa=mnist": "unknown key or group 'dataa' (did you mean 'data'?); known: data,",
    "schema/data=image": "unknown group 'schema/data'",
    "+optimizer.moment=0.9": "unknown key of optimizer 'moment' (did you mean 'momentum'?)",
    "~optimizer": "'optimizer' has no value",
    "model=custom": "'model.factory' has no value",
    "model=torchvision": "'model.arch' has no value",
    "model=null": "unknown option of model 'null'; known: cnn,",
    "+experiment=nullspace/mlp_mnist": "'experiment' has an option already, which experiment=<option>, without",
    "+seed=1": "'seed' has a value already, which seed=<value>, without a +, replaces",
    "~training": "'training' was deleted, and a run needs it",
    "seed=010": "'seed' on the command line has the value 010, which is the text 010 on the command line and 8 in a",
    "model.label=a/b": "model.label must be a part of a file name",
    "model.widths=[[1]]": "model.widths must be a whole number from 1",
    "model.widths=[1000000000]": "would take 600 GB, and this machine has",
    "data.crop=8": "data.crop is 8, expected a number of pixels from 0 to below the size of the images, 8x8",
    "--resolve": "--resolve goes with --cfg",
    "model.name=none_such": "unknown model 'none_such'",
    "optimizer=sgd,adam": "add -m to sweep over them",
    "optimizer.lr=[1,": "cannot read 'optimizer.lr=[1,' on the command line",
    "seed": "cannot read 'seed' on the command line",
    "optimizer.lr=${rates.digits.none.lr}": "takes its value from 'rates.digits.none.lr', which has none",
    "--sweep": "unrecognized arguments: --sweep; python run.py --help says what there is",
    "--cfg=none_such": "invalid choice: 'none_such'",
    "training.epochs=-1": "training.epochs must be a whole number from 0 to 2147483647, not -1",
    "training.batch_size=0": "training.batch_size must be",
    "training.eval_samples=0": "training.eval_samples must be",
    "optimizer.nesterov=17": "'optimizer.nesterov' must be true or false, not '17'",
    "model.bias=0": "'model.bias' must be true or false, not '0'",
    "optimizer.lr=-1": "optimizer.lr must be a number above 0 and at most 1e+30, not -1.0",
    "machine.device=gpu": "machine.device must be auto, cpu, cuda, xpu or mps",
    "machine.device=cuda:7": "machine.device=cuda:7 is not here",
    "hydra.run.dir=there": "hydra.run.dir is not for this command: a run has a folder of its own",
    "hydra.job.chdir=true": "hydra.job.chdir is not for this command: paths are relative to the folder of the call",
    "@=1": "look for the mistake in @=1",
    "machine.runs=/dev/null/runs": "cannot write '/dev/null/runs",
}


def in_process(monkeypatch, *arguments: str) -> int:
    """Run ``run.py`` as its own main module in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # restored afterwards
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    return caught.value.code


def process(*arguments: str, environment=None, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    return finished(command, cwd=ROOT, env=environment, **options)


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_sentence(monkeypatch, capsys, tmp_path, override):
    runs = [] if override.startswith("machine.runs") else [f"machine.runs={tmp_path / 'runs'}"]
    assert in_process(monkeypatch, override, *runs) == 2
    said = capsys.readouterr().err
    assert MISTAKES[override] in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_a_real_process(tmp_path):
    result = process("optimizer.lrr=1", f"machine.runs={tmp_path}")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: unknown key of optimizer 'lrr'")
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
    model = ["model=custom", "model.factory=tests.experiments.small:bug"]
    monkeypatch.setattr(sys, "argv", ["run.py", *model, f"machine.runs={tmp_path}"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(ZeroDivisionError):
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")


def test_help_is_quick_to_load_and_lists_the_options():
    code = "import sys, runpy; sys.argv = ['run.py', '--help']; runpy.run_path('run.py', run_name='__main__')"
    watched = f"import atexit, sys\natexit.register(lambda: print('LOADED', *sorted(sys.modules)))\n{code}"
    result = subprocess.run([sys.executable, "-c", watched], cwd=ROOT, capture_output=True, text=True, check=True)
    text, _, loaded = result.stdout.partition("LOADED ")
    assert not {"torch", "torchvision", "pandas", "matplotlib", "numpy"} & set(loaded.split())
    assert "schema" not in text
    for option in ("[digits]", "nullspace/mlp_mnist", "teleport=nullspace", "scale=smoke"):
        assert option in text


def test_a_run_that_is_there_is_told_of_without_torch(tmp_path):
    folder = run_folder(resolve(composed(f"machine.runs={tmp_path}")))
    folder.mkdir()
    (folder / "summary.json").write_text("{}")
    arguments = ["run.py", f"machine.runs={tmp_path}"]
    code = f"import sys, runpy; sys.argv = {arguments}; runpy.run_path('run.py', run_name='__main__')"
    watched = f"import atexit, sys\natexit.register(lambda: print('LOADED', *sorted(sys.modules)))\n{code}"
    result = subprocess.run([sys.executable, "-c", watched], cwd=ROOT, capture_output=True, text=True, check=True)
    text, _, loaded = result.stdout.partition("LOADED ")
    assert text == f"already done: {folder}\n"
    assert "torch" not in loaded.split()


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    """The system's own limit on the size of a file stands in for a disk that is full."""
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    result = process(*SMALL, f"machine.runs={tmp_path}", preexec_fn=limit)
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot write '")
    assert result.stderr.count("\n") == 1
    left = {file.name for folder in tmp_path.iterdir() for file in folder.iterdir()}
    assert "summary.json" not in left
    assert not [name for name in left if name.endswith(".tmp")]
    assert in_process(monkeypatch, *SMALL, f"machine.runs={tmp_path}") == 0  # with room, the same command ends well


def test_a_run_leaves_nothing_outside_of_its_folder(tmp_path, monkeypatch, capsys):
    before = set(ROOT.iterdir())
    monkeypatch.chdir(tmp_path)
    assert in_process(monkeypatch, *SMALL) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert set(ROOT.iterdir()) == before
    capsys.readouterr()
    assert in_process(monkeypatch, *SMALL) == 0
    assert "already done: runs/digits-mlp-sgd-none-s0-" in capsys.readouterr().out


def read(path: Path, *without: str) -> list[dict[str, str]]:
    with path.open() as file:
        return [{key: row[key] for key in row if key not in without} for row in csv.DictReader(file)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_goes_on_where_a_job_fails(tmp_path, monkeypatch, capsys, jobs):
    """The failing job is in the middle; the table, on screen and as a file, has all three."""
    machine = [f"machine.runs={tmp_path}", f"machine.jobs={jobs}", "machine.threads=1"]
    code = in_process(monkeypatch, "-m", *SMALL, *machine, "model.activation=relu,none_such,tanh")
    assert code == 1
    text = capsys.readouterr().out
    assert "3 runs, 1 failed" in text
    (table,) = (tmp_path / "sweeps").glob("*[0-9].csv")
    rows = read(table)
    assert ["relu" in rows[0]["overrides"], "none_such" in rows[1]["overrides"]] == [True, True]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert "none_such" in rows[1]["error"]
    for row in (rows[0], rows[2]):
        summary = json.loads((Path(row["folder"]) / "summary.json").read_text())
        assert float(row["test_loss"]) == summary["test_loss"]
        assert f"{summary['train_loss']:.4g}" in text


def test_the_folder_of_a_sweep_is_the_one_that_is_asked_for(tmp_path, monkeypatch):
    runs, there = tmp_path / "runs", tmp_path / "there"
    assert in_process(monkeypatch, "-m", *SMALL, f"machine.runs={runs}", f"hydra.sweep.dir={there}", "seed=0,1") == 0
    assert [path.name for path in there.iterdir()] == ["multirun.yaml"]
    assert (runs / "sweeps" / "there.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [("cores", "hydra_joblib_launcher"), ("submitit", "hydra_submitit_launcher"), ("ray_local", "hydra_ray_launcher")],
)
def test_a_sweep_is_right_under_a_launcher(launcher, plugin):
    """A failing and two killed runs, and two sweeps at once."""
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"needs {plugin}: pip install -e '.[launchers]'")
    result = finished([sys.executable, "scripts/check_launchers.py", launcher], seconds=900, cwd=ROOT)
    assert result.returncode == 0, result.stdout


SBATCH = """#!/bin/sh
cp "$1" "$SAVED"
echo "sbatch: error: no such partition" >&2
exit 1
"""


@pytest.mark.slow
def test_the_job_that_slurm_gets(tmp_path):
    """A program that keeps what it is given stands in for sbatch, and then refuses it, as SLURM does."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs submitit: pip install -e '.[submitit]'")
    for name, text in (("sbatch", SBATCH), ("srun", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    saved, runs = tmp_path / "job.sh", tmp_path / "runs"
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SAVED": str(saved)}
    launcher = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", f"machine.runs={runs}"]
    result = process("-m", *SMALL, *launcher, "seed=0,1,2", environment=path)
    assert result.returncode == 2
    sentence = "error: the launcher starts no process: FailedJobError: sbatch: error: no such partition"
    assert result.stderr.splitlines() == ["sbatch: error: no such partition", sentence]
    job = saved.read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", job, flags=re.MULTILINE))
    assert options["array"] == "0-2%3"
    assert options["partition"] == "gpu"
    assert (options["time"], options["cpus-per-task"], options["ntasks-per-node"]) == ("240", "4", "1")
    assert options["signal"] == "USR2@120"  # at which a run is queued again
    folder = options["output"].rpartition("/")[0]
    assert folder.startswith(str(runs / "sweeps"))
    assert re.search(r"^srun .* -u -m submitit\.core\._submit ", job, flags=re.MULTILINE)


def test_the_jobs_of_another_launcher_are_not_set_by_machine_jobs(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(job.BASIC, "launcher", "another.Launcher")
    assert in_process(monkeypatch, "-m", *SMALL, f"machine.runs={tmp_path}", "machine.jobs=2", "seed=0,1") == 1
    assert "machine.jobs=2 needs Hydra's own launcher" in capsys.readouterr().out


def test_a_job_returns_the_test_loss_of_its_run(tmp_path):
    """What a sweeper minimises, read as a sweeper does: from what Hydra returns of a job."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        overrides = [*SMALL, f"machine.runs={tmp_path}"]
        returned = hydra.run("config", job.job, overrides, with_log_configuration=False)
        diverged = hydra.run("config", job.job, [*overrides, "optimizer.lr=1e30"], with_log_configuration=False)
    summaries = [json.loads(file.read_text()) for file in tmp_path.glob("*/summary.json")]
    assert returned.return_value in [summary["test_loss"] for summary in summaries]
    assert diverged.return_value == math.inf
    assert sorted(summary["diverged"] for summary in summaries) == [False, True]


@pytest.mark.slow
def test_a_command_whose_every_run_diverged_exits_with_1(tmp_path, monkeypatch, capsys):
    runs = [*SMALL, f"machine.runs={tmp_path}"]
    for arguments, code in (
        (["optimizer.lr=1e30"], 1),
        (["optimizer.lr=1e30"], 1),  # it is there already
        (["-m", "optimizer.lr=1e30", "seed=0,1"], 1),
        (["-m", "optimizer.lr=0.01,1e30"], 0),
    ):
        assert in_process(monkeypatch, *runs, *arguments) == code
    text = capsys.readouterr().out
    assert text.count("every run diverged: none has a finite loss at its end") == 1
    assert "2 runs, 0 failed" in text


def test_a_sweep_of_an_optimiser_goes_on_after_a_diverged_trial(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    optuna = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=1", "machine.threads=1"]
    result = process("-m", *SMALL, f"machine.runs={tmp_path}", *optuna, "optimizer.lr=choice(0.01,1e30)")
    assert result.returncode == 0, result.stderr
    assert "6 runs, 0 failed" in result.stdout
    assert "diverged at step" in result.stdout
    (best,) = (tmp_path / "sweeps").glob("*/optimization_results.yaml")
    assert "optimizer.lr: 0.01" in best.read_text()


@pytest.mark.slow
def test_flags_stand_before_or_after_the_overrides(tmp_path, monkeypatch, capsys):
    runs = [*SMALL, f"machine.runs={tmp_path}"]
    for arguments in (
        ["-m", "seed=0,1"],
        ["seed=0,1", "-m"],
        ["training.plateau.patience=3", "--multirun", "seed=0,1"],
    ):
        assert in_process(monkeypatch, *runs, *arguments) == 0
        assert "2 runs, 0 failed" in capsys.readouterr().out


@pytest.mark.slow
def test_values_of_a_range_are_those_that_are_written_down(tmp_path, monkeypatch, capsys):
    runs = ["-m", *SMALL, f"machine.runs={tmp_path}"]
    assert in_process(monkeypatch, *runs, "optimizer.lr=range(0.1,0.35,0.1)") == 0
    assert in_process(monkeypatch, *runs, "optimizer.lr=0.1,0.2,0.3") == 0
    text = capsys.readouterr().out
    assert text.count("\ndone: ") == text.count("already done: ") == 3
    assert len(list(tmp_path.glob("*/summary.json"))) == 3
    assert "0.30000000000000004" not in text


@pytest.mark.slow
def test_two_sweeps_over_the_same_runs_share_them(tmp_path):
    command = [sys.executable, "run.py", "-m", *SMALL, f"machine.runs={tmp_path}", "seed=0,1"]
    with started(command, cwd=ROOT) as one, started(command, cwd=ROOT) as other:
        both = [one, other]
        said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(text.count("\ndone: ") for text in said) == 2
    assert all("2 runs, 0 failed" in text for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_sweep_ends_its_runs_and_prints_the_table_so_far(tmp_path, jobs):
    """Interrupted in the long runs that follow a short one; with two at a time a fourth waits for its turn."""
    runs = ["machine.threads=1", f"machine.jobs={jobs}", f"machine.runs={tmp_path}", "training.epochs=1,4000,4001,4002"]
    small = [each for each in SMALL if not each.startswith("training.epochs")]
    command = [sys.executable, "-u", "run.py", "-m", *small, *runs]
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a caller in the background ignores it
    with started(command, cwd=ROOT, preexec_fn=interruptible) as running:
        text = ""
        for said in running.stdout:
            text += said
            if "\nepoch   3.00" in text and "\ndone: " in text:  # the short run has ended, a long one is under way
                time.sleep(1)  # side by side: its outcome is written right after it says so
                running.send_signal(signal.SIGINT)
                break
        text += running.stdout.read()
    assert running.returncode == 130
    assert f"{2 * jobs} runs, {2 * jobs - 1} failed" in text
    (table,) = (tmp_path / "sweeps").glob("*.csv")
    errors = [row["error"] for row in read(table)]
    assert errors == (["", "interrupted"] if jobs == 1 else ["", *["interrupted"] * 3])
    assert not list(tmp_path.glob("*/summary.json"))[1:]


def test_help_lists_the_options_of_the_users_own_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "my_own.yaml").write_text("# mine\ndefaults: [mlp, _self_]\n")
    assert in_process(monkeypatch, "-cd", str(tmp_path), "--help") == 0
    text = capsys.readouterr().out
    assert "my_own" in text
    for word in ("machine.jobs", "hydra/launcher=cores", "install=bash"):
        assert word in text
    assert in_process(monkeypatch, "-cd", str(tmp_path), "model=my_owm") == 2
    assert "did you mean 'my_own'?" in capsys.readouterr().err
    assert in_process(monkeypatch, "--help") == 0
    assert "my_own" not in capsys.readouterr().out


def test_a_figure_has_an_entry_point_of_its_own(monkeypatch, capsys):
    """It is the command line with ``figure=`` before the name, mistakes included."""
    for arguments, code, words in (
        (["nullspace/fig88"], 2, "unknown option of figure 'nullspace/fig88' (did you mean"),
        (["nullspace/fig8", "optimizer.lrr=1"], 2, "unknown key of optimizer 'lrr'"),
        ([], 2, "usage: python scripts/figure.py NAME"),
        (["--help"], 0, "usage: python scripts/figure.py NAME"),
    ):
        monkeypatch.setattr(sys, "argv", ["figure.py", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(ROOT / "scripts" / "figure.py"), run_name="__main__")
        assert caught.value.code == code
        said = capsys.readouterr()
        assert words in said.out + said.err


FIGURE = """# @package figure
defaults:
  - /schema/figure@_here_: figure
  - _self_
title: Runs
claim: none
runs:
  - {{data: digits, model: custom, "model.factory": "tests.experiments.small:watched", optimizer: sgd, teleport: none,
     seed: [{seeds}]}}
  - {{data: digits, model: mlp_small, optimizer: sgd, teleport: none, rates: tuned}}
draw: {{name: curves, x: epoch, lines: [rates]}}
"""


@pytest.mark.slow
def test_a_figure_in_which_runs_are_missing_ends_with_1_and_one_whose_pairs_are_not_tuned_with_0(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "figure" / "own").mkdir(parents=True)
    (tmp_path / "figure" / "own" / "whole.yaml").write_text(FIGURE.format(seeds="0"))
    (tmp_path / "figure" / "own" / "broken.yaml").write_text(FIGURE.format(seeds="0, 3"))  # seed 3 fails
    monkeypatch.setenv("TRAININGS", str(tmp_path / "trainings"))
    words = ["data.train_samples=300", "data.test_samples=100", "training.epochs=1", "machine.threads=1"]
    words += [f"machine.runs={tmp_path / 'runs'}", f"machine.results={tmp_path / 'results'}"]
    assert in_process(monkeypatch, "-cd", str(tmp_path), "figure=own/whole", *words) == 0
    assert "are missing in the figure" not in capsys.readouterr().out
    for sweep in ([], ["-m"]):
        assert in_process(monkeypatch, "-cd", str(tmp_path), *sweep, "figure=own/broken", *words) == 1
        assert "1 of 3 runs are missing in the figure" in capsys.readouterr().out
    assert len(list((tmp_path / "results").rglob("*.png"))) == 2


def test_a_sweep_that_does_not_compose_starts_nothing(tmp_path, monkeypatch, capsys):
    assert in_process(monkeypatch, "-m", *SMALL, f"machine.runs={tmp_path / 'runs'}", "data=digits,none_such") == 2
    assert "unknown option of data 'none_such'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# All that a checkpoint has to hold: momentum, dropout's random numbers, a plateau, teleports.
LONG = [
    *("data.train_samples=700", "data.test_samples=100", "training.epochs=8", "training.plateau.factor=0.9"),
    *("model=custom", "model.factory=tests.experiments.small:with_dropout", "+model.options.width=256"),
    *("optimizer=momentum", "optimizer.lr=0.05", *SMALL_TELEPORT, "teleport.epochs=[0,2,4,6]", "teleport.batches=4"),
    *(
        "training.plateau.patience=0",
        "training.lr_warmup_steps=60",
        "machine.checkpoint_seconds=0",
        "machine.threads=1",
    ),
]
KILLS = ["teleport 0 before", "epoch   2.00", "epoch   5.00"]
"""Lines after which the process is killed: after a teleport, right before one (while it goes on), between them."""


def kill_after(line: str, *arguments: str) -> None:
    """Start the command, and kill its process when it has said ``line``."""
    command = [sys.executable, "-u", "run.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with started(command, cwd=ROOT, env=environment) as running:
        for said in running.stdout:
            if said.startswith(line):
                time.sleep(0.02)
                running.send_signal(signal.SIGKILL)
                break
    assert running.returncode == -signal.SIGKILL, f"the run ended before it said '{line}'"


@pytest.mark.slow
def test_a_killed_run_ends_bit_identical_to_one_that_was_not(tmp_path, monkeypatch, capsys):
    for line in KILLS:
        kill_after(line, *LONG, f"machine.runs={tmp_path / 'killed'}")
    assert in_process(monkeypatch, *LONG, f"machine.runs={tmp_path / 'killed'}") == 0
    assert "goes on from step" in capsys.readouterr().out
    assert in_process(monkeypatch, *LONG, f"machine.runs={tmp_path / 'whole'}") == 0
    assert "goes on from step" not in capsys.readouterr().out
    (whole,), (killed,) = ((tmp_path / name).iterdir() for name in ("whole", "killed"))
    assert whole.name == killed.name
    one, other = (torch.load(folder / "model.pt", weights_only=True) for folder in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    for table in ("curve", "teleports", "teleport_layers", "teleport_events"):
        rows = [read(folder / f"{table}.csv", "seconds", "started") for folder in (whole, killed)]
        assert rows[0] == rows[1]
        assert rows[0]
    assert {file.name for file in whole.iterdir()} == {file.name for file in killed.iterdir()}
