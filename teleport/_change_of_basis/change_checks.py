"""The structure, types and values of a change of basis that comes from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from teleport._quiver.quiver import Freedom


def mistake_in(state: Any) -> str:
    """What is wrong with the plain form of a change of basis, ``BasisChange.state_dict()``; empty if nothing is."""
    kinds = {"tau": Tensor, "freedom": Tensor, "inverse": Tensor, "scaled": Mapping, "units": Mapping, "kinds": Mapping}
    kinds |= {"sites": list, "reasons": Mapping, "calls": Mapping}
    for key, kind in kinds.items():
        if not isinstance(state, Mapping) or not isinstance(state.get(key), kind):
            return f"there is no {kind.__name__.lower()} '{key}'"
    tau = state["tau"]
    if mistake := _mistake_in_factors("tau", tau):
        return mistake
    if tau.dtype != torch.float64 or tau.ndim != 1:
        return f"'tau' is of type {tau.dtype} and shape {list(tau.shape)}"
    classes = len(tau)
    bounds = {"freedom": (0, max(Freedom)), "inverse": (-1, classes - 1)}
    for key, (low, high) in bounds.items():
        if state[key].shape != tau.shape or not _whole_numbers(state[key], low, high):
            return f"'{key}' has no number from {low} to {high} per class"
    for name, both in state["scaled"].items():
        if not isinstance(both, tuple | list) or len(both) != 2:
            return f"'scaled' has no two classes of {name!r}"
        if not all(_whole_numbers(each, 0, classes - 1) for each in both):
            return f"'scaled' has other classes of {name!r} than those of 'tau'"
    for name, each in state["units"].items():
        if not _whole_numbers(each, 0, classes - 1):
            return f"'units' has other classes of {name!r} than those of 'tau'"
    return _mistake_in_sites(state["sites"], classes) or _mistake_in_calls(state["calls"])


def mistake_in_activations(state: Any) -> str:
    """What is wrong with the extra state of a teleported model; empty if nothing is."""
    if not isinstance(state, Mapping) or not isinstance(state.get("activations"), list):
        return "there is no list 'activations'"
    for each in state["activations"]:
        if not isinstance(each, Mapping) or set(each) != {"function", "call", "tau"}:
            return "one of 'activations' has other keys than function, call and tau"
        if not isinstance(each["function"], str) or not _count(each["call"]):
            return "one of 'activations' names no call of a function"
        if mistake := _mistake_in_factors("tau", each["tau"]):
            return mistake
    return _mistake_in_calls(state.get("calls"))


def _mistake_in_sites(sites: list[Any], classes: int) -> str:
    for site in sites:
        if not isinstance(site, Mapping) or set(site) != {"call", "function", "classes", "homogeneous"}:
            return "one of 'sites' has other keys than call, function, classes and homogeneous"
        if not isinstance(site["function"], str) or not _count(site["call"]):
            return "one of 'sites' names no call of a function"
        if not isinstance(site["homogeneous"], bool) or not _whole_numbers(site["classes"], 0, classes - 1):
            return "one of 'sites' has other classes than those of 'tau'"
    return ""


def _mistake_in_calls(calls: Any) -> str:
    named = isinstance(calls, Mapping) and all(isinstance(name, str) for name in calls)
    return "" if named and all(map(_count, calls.values())) else "'calls' has no number of calls per function"


def _mistake_in_factors(name: str, tau: Any) -> str:
    if not isinstance(tau, Tensor) or not tau.is_floating_point():
        return f"'{name}' holds no real numbers"
    return "" if bool((tau.isfinite() & (tau != 0)).all()) else f"'{name}' has a factor that is 0 or not finite"


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _whole_numbers(value: Any, low: int, high: int) -> bool:
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        return False
    return not value.numel() or (low <= int(value.min()) and int(value.max()) <= high)
