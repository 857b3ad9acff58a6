from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from experiments.configuration.data_config import DigitsData, RandomData
from experiments.data.embedded import digits_task, random_task, stratified
from experiments.errors import UserError

CPU = torch.device("cpu")


def noise(**keys: object) -> RandomData:
    given = {"name": "random", "train_samples": 64, "test_samples": 16, "shape": [3, 4, 5], **keys}
    return RandomData(**given)


def test_digits_are_sklearns_each_once():
    task = digits_task(DigitsData(name="digits", train_samples=None, test_samples=None), CPU)
    assert (len(task.train), len(task.test)) == (1437, 360)
    assert task.spec.input_shape == (1, 8, 8)
    assert task.spec.outputs == 10
    assert task.note == ""
    pixels = torch.cat([task.train.images, task.test.images])[:, 0].numpy()
    labels = torch.cat([task.train.labels, task.test.labels]).tolist()
    here = sorted((label, image.tobytes()) for label, image in zip(labels, pixels, strict=True))
    digits = load_digits()
    there = sorted((int(y), x.astype(np.uint8).tobytes()) for y, x in zip(digits.target, digits.images, strict=True))
    assert here == there
    shares = np.bincount(task.test.labels.numpy()) / np.bincount(digits.target)
    assert shares.min() > 0.19
    assert shares.max() < 0.21


def test_digits_are_split_as_scikit_learn_splits_them():
    task = digits_task(DigitsData(name="digits", train_samples=None, test_samples=None), CPU)
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    ours = [task.train.images[:, 0], task.test.images[:, 0], task.train.labels, task.test.labels]
    for own, theirs in zip(ours, parts, strict=True):
        np.testing.assert_array_equal(own.numpy(), theirs)


@pytest.mark.parametrize(("split", "share"), [("random", 0.983), ("order", 0.956)])
def test_a_random_split_has_the_same_writers_in_both_parts(split, share):
    """The label of the nearest training image, in plain numpy: far more often right if the writers are the same."""
    task = digits_task(DigitsData(name="digits", train_samples=None, test_samples=None, split=split), CPU)
    assert (len(task.train), len(task.test)) == (1437, 360)
    train, test = (part.images.flatten(1).double().numpy() for part in (task.train, task.test))
    distances = (test**2).sum(1)[:, None] - 2 * test @ train.T + (train**2).sum(1)
    right = task.train.labels.numpy()[distances.argmin(1)] == task.test.labels.numpy()
    assert right.mean() == pytest.approx(share, abs=5e-4)


def test_a_split_by_order_holds_out_the_last_fifth():
    task = digits_task(DigitsData(name="digits", train_samples=None, test_samples=None, split="order"), CPU)
    digits = load_digits()
    np.testing.assert_array_equal(task.train.labels.numpy(), digits.target[:1437])
    np.testing.assert_array_equal(task.test.images[:, 0].numpy(), digits.images[1437:])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(5, 40), min_size=2, max_size=8), st.integers(10, 15), st.integers(0, 2**16))
def test_a_stratified_split_takes_each_sample_once_and_each_class_in_proportion(counts, test_samples, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    test_samples = min(test_samples, len(labels) - 1)
    train, test = stratified(labels, test_samples)
    assert len(test) == test_samples
    assert sorted([*train, *test]) == list(range(len(labels)))
    exact = np.array(counts) * test_samples / len(labels)
    assert (abs(np.bincount(labels[test], minlength=len(counts)) - exact) < 1 + 1e-9).all()


def test_noise_is_seeded_and_nested():
    task, again = random_task(noise(), CPU), random_task(noise(), CPU)
    index = torch.arange(64)
    x, y = task.train.batch(index)
    assert x.shape == (64, 3, 4, 5)
    assert torch.equal(x, again.train.batch(index)[0])
    longer = random_task(noise(train_samples=100), CPU)
    assert torch.equal(longer.train.batch(index)[0], x)
    assert torch.equal(longer.train.batch(index)[1], y)
    assert torch.equal(longer.test.batch(index[:16])[0], task.test.batch(index[:16])[0])
    assert not torch.equal(random_task(noise(data_seed=1), CPU).train.batch(index)[0], x)
    assert not torch.equal(task.test.batch(index[:16])[0], x[:16])


def test_noise_is_standard_normal_with_even_labels():
    task = random_task(noise(train_samples=5000, classes=4), CPU)
    x, y = task.train.batch(torch.arange(5000))
    assert abs(float(x.mean())) < 0.01
    assert float(x.std()) == pytest.approx(1, abs=0.01)
    assert y.dtype == torch.int64
    assert (torch.bincount(y, minlength=4) > 1100).all()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"shape": [3, 4]}, "data.shape"),
        ({"shape": [3, 0, 4]}, "data.shape"),
        ({"classes": 1}, "data.classes"),
        ({"data_seed": -1}, "data.data_seed"),
        ({"train_samples": None}, "data.train_samples is null"),
        ({"test_samples": 0}, "data.test_samples"),
    ],
)
def test_a_key_that_does_not_fit(keys, said):
    with pytest.raises(UserError, match=said):
        random_task(noise(**keys), CPU)
