from __future__ import annotations

import time

import pytest
import torch

from experiments.run.clock import Clock, counts_processor

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("number", "compiled", "counted"), [(1, False, True), (2, False, False), (1, True, False)])
def test_one_thread_that_compiles_nothing_is_timed_by_the_processor(threads, number, compiled, counted):
    threads(number)
    assert counts_processor(CPU, compiled) is counted
    assert not counts_processor(torch.device("cuda"), compiled)


def test_waiting_counts_on_the_wall_clock_alone():
    wall, processor = Clock(CPU), Clock(CPU, processor=True)
    wall.start()
    processor.start()
    time.sleep(0.2)
    waited, worked = wall.stop(), processor.stop()
    assert waited >= 0.2
    assert 0 <= worked < waited / 2


def test_work_counts_on_both():
    wall, processor = Clock(CPU), Clock(CPU, processor=True)
    processor.start()
    wall.start()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert wall.stop() >= 0.05 * 0.99
    assert processor.stop() >= 0.05
