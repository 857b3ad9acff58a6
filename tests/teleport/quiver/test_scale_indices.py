"""Operations on compact scale indices against the same operations on full ones."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teleport._quiver.scale_indices import compact, compacts, constant, reshaped, side_by_side


@st.composite
def scale_indices(draw: st.DrawFn, dims: int | None = None) -> torch.Tensor:
    """Of one to four axes, some of which it does not vary along."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=dims or 1, max_size=dims or 4))
    kept = [size if draw(st.booleans()) else 1 for size in sizes]
    return torch.randint(100, kept).expand(sizes)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(scale_indices(), st.data())
def test_reshaped_is_reshape(scale_index, data):
    sizes = list(scale_index.shape)
    if len(sizes) > 1 and data.draw(st.booleans()):
        first = data.draw(st.integers(0, len(sizes) - 2))
        sizes[first : first + 2] = [sizes[first] * sizes[first + 1]]
    for _ in range(data.draw(st.integers(0, 2))):
        sizes.insert(data.draw(st.integers(0, len(sizes))), 1)
    assert torch.equal(reshaped(scale_index, torch.Size(sizes)), scale_index.reshape(sizes))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(scale_indices(dims=3), min_size=1, max_size=3), st.integers(-3, 2))
def test_side_by_side_is_cat(made, dim):
    shape = list(made[0].shape)
    for index, scale_index in enumerate(made):
        wanted = shape.copy()
        wanted[dim] = scale_index.shape[dim]
        made[index] = scale_index[tuple(slice(0, 1) if a != dim % 3 else slice(None) for a in range(3))].expand(wanted)
    assert torch.equal(side_by_side(made, dim), torch.cat(made, dim))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(scale_indices())
def test_a_compact_index_broadcasts_to_the_index(scale_index):
    assert torch.equal(compact(scale_index).expand(scale_index.shape), scale_index)
    pair = compacts(scale_index, constant(scale_index.shape, 7))
    assert all(side.shape == compact(scale_index).shape for side in pair)
    assert compact(constant((3, 4))).numel() == 1
