# %% [markdown]
# A sweep of the suite, read into a notebook. The cells run as a script as well: python examples/sweep_to_table.py
# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
RUNS = Path(tempfile.mkdtemp())

# %% Two optimizers, without and with teleports, two seeds: eight runs on the embedded digits.
sweep = (
    "-m optimizer=sgd,adam teleport=none,gentle seed=0,1 training.epochs=2 data=digits model=mlp model.widths=[256,256]"
)
command = [sys.executable, "run.py", *sweep.split(), f"machine.runs={RUNS}", "machine.progress=false"]
subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

# %% Every run has a folder, with its configuration and its tables.
curves = []
for path in sorted(RUNS.glob("*/curve.csv")):
    config = yaml.safe_load((path.parent / "config.yaml").read_text())
    names = {"optimizer": config["optimizer"]["name"], "teleport": config["teleport"]["label"]}
    curves.append(pd.read_csv(path).assign(**names, seed=config["seed"]))
curves = pd.concat(curves)

# %% The last evaluation of each run; mean and standard deviation over seeds.
last = curves.sort_values("step").groupby(["optimizer", "teleport", "seed"]).last()
print(last.groupby(["optimizer", "teleport"])[["train_loss", "test_loss", "seconds"]].agg(["mean", "std"]).round(4))

# %% What each teleport did.
events = pd.concat([pd.read_csv(path).assign(run=path.parent.name) for path in RUNS.glob("*/teleports.csv")])
events["growth"] = events["gradient_norm_after"] / events["gradient_norm_before"]
print(events.groupby("run")[["growth", "steps"]].mean().round(3))
