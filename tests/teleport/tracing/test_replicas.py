"""A model that is wrapped for several processes, of which there is one."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import distributed, nn

from teleport import LevelSet
from tests.teleport.networks import CLASSES, cross_entropy


@pytest.fixture
def one_process():
    if not distributed.is_available() or distributed.is_initialized():
        pytest.skip("torch has no process groups here, or one is open")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_the_one_replica_moves_as_the_model_itself(one_process):
    torch.manual_seed(0)
    batch = torch.randn(8, 6).double(), torch.arange(8) % CLASSES
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(plain))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reports = [LevelSet(steps=2)(model, [batch], cross_entropy) for model in (plain, wrapped)]
    assert [report.steps for report in reports] == [2, 2]
    for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(one, other)
