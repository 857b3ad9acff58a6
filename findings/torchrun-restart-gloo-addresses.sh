#!/usr/bin/env bash
# torch 2.13.0: after torchrun restarts its processes, gloo may connect to addresses of processes that have ended.
#
# Expected: with --max-restarts=1 the second attempt connects, as torch says that there is a new store per attempt
# (torch/distributed/rendezvous.py, _create_c10d_store: "We create a new TCPStore for every retry so no need to add
# prefix for each attempt").
# Seen: the store of the agent is the same, and it still has the addresses of the first attempt. A process that is
# faster than another in the second attempt reads the old address of the other: "Gloo connectFullMesh failed ...
# Connection refused". Here the first process waits for 30 seconds, so that it happens each time; without, it depends on
# the load of the machine. With a prefix per attempt on the store the second attempt connects. The last line of the
# output is "as described".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/restarted.py" <<'PYTHON'
import os
import signal
import sys
import time

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], int(os.environ["RANK"])
if attempt == "1" and rank == 0:
    time.sleep(30)
if sys.argv[1] == "prefix":
    store, rank, size = next(rendezvous("env://"))
    store = distributed.PrefixStore(f"attempt {attempt}", store)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
else:
    distributed.init_process_group("gloo")
distributed.all_reduce(torch.ones(1))
print(f"attempt {attempt}: connected", flush=True)
if attempt == "0" and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
distributed.barrier()
PYTHON
attempts() {
    OMP_NUM_THREADS=1 "$work/venv/bin/python" -m torch.distributed.run --standalone --nproc-per-node=2 \
        --max-restarts=1 "$work/restarted.py" "$1" > "$work/$1.txt" 2>&1
}
attempts prefix || { echo "a prefix does not help"; exit 1; }
grep "^attempt" "$work/prefix.txt" | sort | uniq -c
if attempts plain; then echo "the second attempt connects now"; exit 1; fi
grep -m 1 -o "Gloo connectFullMesh failed.*Connection refused" "$work/plain.txt"
echo "as described"
