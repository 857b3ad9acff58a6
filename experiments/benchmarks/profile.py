"""The phases of a run's first teleport event, and a torch profile of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity

from experiments.benchmarks.phases import Phases
from experiments.benchmarks.suite import Prepared, configuration
from experiments.errors import UserError


def profile_event(overrides: Sequence[str], device: torch.device, rows: int) -> str:
    """The phases of the first event of ``python run.py OVERRIDES``, then its most expensive operations by self time.

    There is one row per phase, and one per operation and input shapes. The event is measured in its second and third
    call, which excludes one-time costs.

    Args:
        overrides: of the command line.
        device: of the run.
        rows: number of operations.

    Raises:
        UserError: the run has no teleport, the configuration has a mistake, or the data are not available.
    """
    config = configuration(overrides, device)
    if config.teleport.name == "none":
        raise UserError("there is no teleport to profile; choose one, such as teleport=nullspace")
    prepared = Prepared(config, device)
    prepared.event(config.teleport)()
    with Phases(device) as phases:
        prepared.event(config.teleport)()
    event = prepared.event(config.teleport)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        report = event()
    torch.use_deterministic_algorithms(False)  # a run enables it
    table = profile.key_averages(group_by_input_shape=True).table(
        sort_by=f"self_{'cuda' if on_gpu else 'cpu'}_time_total", row_limit=rows, max_shapes_column_width=60
    )
    first = f"{config.model.name} on {config.data.name}, teleport {config.teleport.name}"
    return f"{first}: batches {len(report.batches)}, steps {report.steps}\n\n{phases}\n\n{table}"
