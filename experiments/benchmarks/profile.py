"""Where the time of one teleport goes: torch's profile of a run's first event."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity

from experiments.benchmarks.suite import Prepared, configuration
from experiments.errors import UserError


def profile_event(overrides: Sequence[str], device: torch.device, rows: int) -> str:
    """The costliest operations of the first event of ``python run.py OVERRIDES``, by the time spent in each itself.

    Operations on other shapes have rows of their own. The event is profiled at its second call, so that what is loaded
    at first use is not in it.

    Raises:
        UserError: no teleport, a mistake in the configuration, or data that cannot be had.
    """
    config = configuration(overrides, device)
    if config.teleport.name == "none":
        raise UserError("there is no teleport to profile; choose one, such as teleport=nullspace")
    prepared = Prepared(config, device)
    prepared.event(config.teleport)()
    event = prepared.event(config.teleport)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        report = event()
    torch.use_deterministic_algorithms(False)  # which a run asks for
    table = profile.key_averages(group_by_input_shape=True).table(
        sort_by=f"self_{'cuda' if on_gpu else 'cpu'}_time_total", row_limit=rows, max_shapes_column_width=60
    )
    first = f"{config.model.name} on {config.data.name}, teleport {config.teleport.name}"
    return f"{first}: batches {len(report.batches)}, steps {report.steps}\n{table}"
