"""Labels that are kept short against the same computed in full."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teleport._quiver.scale_indices import compact, compacts, constant, reshaped, side_by_side


@st.composite
def labels(draw: st.DrawFn, dims: int | None = None) -> torch.Tensor:
    """Of one to four axes, some of which it does not vary along."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=dims or 1, max_size=dims or 4))
    kept = [size if draw(st.booleans()) else 1 for size in sizes]
    return torch.randint(100, kept).expand(sizes)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(labels(), st.data())
def test_reshaped_is_reshape(label, data):
    sizes = list(label.shape)
    if len(sizes) > 1 and data.draw(st.booleans()):
        first = data.draw(st.integers(0, len(sizes) - 2))
        sizes[first : first + 2] = [sizes[first] * sizes[first + 1]]
    for _ in range(data.draw(st.integers(0, 2))):
        sizes.insert(data.draw(st.integers(0, len(sizes))), 1)
    assert torch.equal(reshaped(label, torch.Size(sizes)), label.reshape(sizes))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(labels(dims=3), min_size=1, max_size=3), st.integers(-3, 2))
def test_side_by_side_is_cat(made, dim):
    shape = list(made[0].shape)
    for index, label in enumerate(made):
        wanted = shape.copy()
        wanted[dim] = label.shape[dim]
        made[index] = label[tuple(slice(0, 1) if a != dim % 3 else slice(None) for a in range(3))].expand(wanted)
    assert torch.equal(side_by_side(made, dim), torch.cat(made, dim))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(labels())
def test_a_core_broadcasts_to_its_label(label):
    assert torch.equal(compact(label).expand(label.shape), label)
    pair = compacts(label, constant(label.shape, 7))
    assert all(side.shape == compact(label).shape for side in pair)
    assert compact(constant((3, 4))).numel() == 1
