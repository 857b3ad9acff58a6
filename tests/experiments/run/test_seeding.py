from __future__ import annotations

import random

import numpy as np
import torch

from experiments.run.seeding import Stream, generator, seed_everything


def draws(seed, stream, number):
    return tuple(torch.randint(2**62, (4,), generator=generator(seed, stream, number)).tolist())


def test_a_generator_depends_on_each_of_its_arguments():
    arguments = [(seed, stream, number) for seed in (0, 1, 2**32 - 1) for stream in Stream for number in (0, 1, 70_000)]
    assert len({draws(*argument) for argument in arguments}) == len(arguments)
    assert draws(3, Stream.ORDER, 5) == draws(3, Stream.ORDER, 5)


def test_a_generator_leaves_the_global_ones_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    draws(0, Stream.TELEPORT, 1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_a_seed_decides_all_global_generators():
    drawn = []
    for _ in range(2):
        seed_everything(7)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
