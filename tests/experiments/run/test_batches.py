"""Training batches by their number."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.configuration.config import TrainingConfig
from experiments.data.images import ImageSplit
from experiments.run.batches import TrainingBatches, draw_batches, steps_per_epoch

CPU = torch.device("cpu")


def loop(batch_size: int, last_batch: str = "keep") -> TrainingConfig:
    return TrainingConfig(epochs=1, batch_size=batch_size, last_batch=last_batch)


def labels_of(samples: int, epochs: int, training: TrainingConfig) -> list[list[list[int]]]:
    """The labels of each batch of each epoch."""
    split = numbered(samples)
    batches, per_epoch = TrainingBatches(split, training, 0, CPU), steps_per_epoch(split, training)
    return [
        [batches.at(epoch * per_epoch + place)[1].tolist() for place in range(per_epoch)] for epoch in range(epochs)
    ]


def numbered(samples: int, **options) -> ImageSplit:
    """Images whose label is their number."""
    images = torch.arange(samples * 16, dtype=torch.uint8).view(samples, 1, 4, 4)
    return ImageSplit(images, torch.arange(samples), torch.zeros(1), torch.ones(1), **options)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_is_every_sample_once(samples, batch_size, seed):
    split = numbered(samples)
    batches = TrainingBatches(split, loop(batch_size), seed, CPU)
    per_epoch = steps_per_epoch(split, loop(batch_size))
    epochs = []
    for epoch in range(2):
        labels = [batches.at(epoch * per_epoch + position)[1] for position in range(per_epoch)]
        assert all(len(batch) == batch_size for batch in labels[:-1])
        epochs.append(torch.cat(labels).tolist())
        assert sorted(epochs[-1]) == list(range(samples))
    assert samples < 10 or epochs[0] != epochs[1]


@given(st.integers(1, 60), st.integers(1, 50))
def test_spread_batches_hold_every_sample_once_and_differ_by_one_at_most(samples, batch_size):
    epochs = labels_of(samples, 2, loop(batch_size, "spread"))
    assert len(epochs[0]) == -(-samples // batch_size)
    for batches in epochs:
        assert sorted(label for batch in batches for label in batch) == list(range(samples))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 60), st.integers(1, 50))
def test_without_a_short_last_batch_all_are_whole_and_begin_an_epoch_as_before(samples, batch_size):
    dropped, kept = (labels_of(samples, 2, loop(batch_size, way)) for way in ("drop", "keep"))
    assert len(dropped[0]) == max(1, samples // batch_size)
    for fewer, all_of_them in zip(dropped, kept, strict=True):
        assert fewer == all_of_them[: len(fewer)]
        assert {len(batch) for batch in fewer} == {min(batch_size, samples)}


def test_what_is_dropped_differs_between_epochs():
    left_out = [
        set(range(20)) - {label for batch in batches for label in batch}
        for batches in labels_of(20, 6, loop(6, "drop"))
    ]
    assert [len(each) for each in left_out] == [2] * 6
    assert len(set().union(*left_out)) > 2


def test_a_batch_does_not_depend_on_those_before_it():
    """As a resumed run asks for them: in the middle of an epoch, augmented ones too."""
    for options in ({}, {"crop": 1, "flip": True}):
        straight = TrainingBatches(numbered(30, **options), loop(8), 3, CPU)
        expected = [straight.at(step) for step in range(12)]
        for step in (7, 2, 11):
            inputs, targets = TrainingBatches(numbered(30, **options), loop(8), 3, CPU).at(step)
            assert torch.equal(inputs, expected[step][0])
            assert torch.equal(targets, expected[step][1])


def test_only_what_is_augmented_gets_random_numbers(monkeypatch):
    seen = []
    monkeypatch.setattr(ImageSplit, "batch", lambda self, index, generator=None: seen.append(generator))
    for options in ({}, {"crop": 1}, {"flip": True}):
        TrainingBatches(numbered(30, **options), loop(8), 3, CPU).at(0)
    assert [generator is not None for generator in seen] == [False, True, True]


def test_drawn_batches_are_of_different_samples():
    drawn = draw_batches(numbered(30), 3, 12, torch.Generator().manual_seed(0), CPU)
    labels = [targets.tolist() for _, targets in drawn]
    assert [len(set(batch)) for batch in labels] == [12, 12, 12]
    assert len({tuple(batch) for batch in labels}) == 3
