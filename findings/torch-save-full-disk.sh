#!/usr/bin/env bash
# torch 2.13.0: torch.save to a file object hides the error of a full disk behind "unexpected pos".
#
# Expected: the OSError (errno 28, no space left on device) that the file object raises reaches the caller, as it does
# from pickle.dump and numpy.save, so that a program can tell a full disk from a damaged model.
# Seen: RuntimeError "[enforce fail at inline_container.cc...] unexpected pos ...". The OSError is at most the context of
# the exception. Code that handles OSError around a checkpoint misses a full disk. The last line is "as described".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import errno
import io
import os
import pickle

import numpy as np
import torch


class SmallDisk(io.RawIOBase):
    """A file of a thousand bytes on a disk that is full then."""

    def __init__(self):
        self.used = 0

    def writable(self):
        return True

    def write(self, content):
        size = memoryview(content).nbytes
        if self.used + size > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.used += size
        return size


def raised(save):
    try:
        save(SmallDisk())
    except Exception as error:
        return error
    return None


values = torch.zeros(10_000)
for name, save in (
    ("pickle.dump", lambda file: pickle.dump(values.numpy().tobytes(), file)),
    ("numpy.save", lambda file: np.save(file, values.numpy())),
):
    error = raised(save)
    print(f"{name}: {type(error).__name__}: {error}")
    assert isinstance(error, OSError)
error = raised(lambda file: torch.save(values, file))
print(f"torch.save: {type(error).__name__}: {str(error).splitlines()[0]}")
assert isinstance(error, RuntimeError) and "unexpected pos" in str(error), repr(error)
print("as described")
PYTHON
