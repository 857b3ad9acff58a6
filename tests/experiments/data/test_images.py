from __future__ import annotations

from pathlib import Path

import archives
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from experiments.configuration.data_config import ImageData
from experiments.data.images import ImageSplit, image_task, pixel_statistics, random_crop, random_flip, task_of_arrays
from experiments.errors import UserError

CPU = torch.device("cpu")
SMALL = st.integers(1, 6)


def config(name: str = "cifar10", root: Path | str = "", **keys: object) -> ImageData:
    return ImageData(**{"name": name, "root": str(root), "train_samples": None, "test_samples": None, **keys})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(SMALL, SMALL, SMALL, SMALL, st.integers(1, 3), st.integers(0, 99))
def test_random_crop_is_a_window_of_each_padded_image(b, c, h, w, padding, seed):
    images = torch.randint(1, 256, (b, c, h, w), dtype=torch.uint8, generator=generator(seed))
    cropped = random_crop(images, padding, generator(seed))
    assert cropped.shape == images.shape
    assert cropped.dtype == torch.uint8
    places = torch.randint(0, 2 * padding + 1, (2, b), generator=generator(seed))
    for image, cut, top, left in zip(images, cropped, *places.tolist(), strict=True):
        padded = torch.zeros(c, h + 2 * padding, w + 2 * padding, dtype=torch.uint8)
        padded[:, padding : padding + h, padding : padding + w] = image
        assert torch.equal(cut, padded[:, top : top + h, left : left + w])


def test_random_crop_reaches_every_place_and_mixes_no_images():
    images = torch.arange(1, 201, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 3, 3).contiguous()
    cropped = random_crop(images, 1, generator())
    for number, cut in enumerate(cropped, start=1):
        assert set(cut.flatten().tolist()) <= {0, number}
    assert len({tuple((cut > 0).flatten().tolist()) for cut in cropped}) == 9


def test_random_flip_mirrors_about_half_and_leaves_the_rest():
    images = torch.randint(0, 256, (1000, 2, 3, 4), dtype=torch.uint8, generator=generator(1))
    flipped = random_flip(images, generator())
    same = [torch.equal(a, b) for a, b in zip(images, flipped, strict=True)]
    mirrored = [
        torch.equal(a, torch.from_numpy(b.numpy()[..., ::-1].copy())) for a, b in zip(images, flipped, strict=True)
    ]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 400 < sum(mirrored) < 600


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_pixel_statistics_are_numpys(n, c, seed):
    images = np.random.default_rng(seed).integers(0, 256, (n, c, 4, 5), np.uint8)
    mean, std = pixel_statistics(torch.from_numpy(images))
    np.testing.assert_allclose(mean, images.astype(np.float64).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, images.astype(np.float64).std((0, 2, 3)), rtol=1e-6)


def test_a_constant_channel_becomes_zero():
    images = torch.full((3, 2, 4, 4), 7, dtype=torch.uint8)
    images[0, 1] = 9
    mean, std = pixel_statistics(images)
    x, _ = ImageSplit(images, torch.zeros(3, dtype=torch.int64), mean, std).batch(torch.arange(3))
    assert std[0] == 1
    assert torch.equal(x[:, 0], torch.zeros(3, 4, 4))
    assert x[:, 1].std(correction=0) == pytest.approx(1, abs=1e-5)


def test_batches_are_the_stored_images_normalised_by_the_training_subset():
    arrays = archives.noise(0, 50, 20, (32, 32, 3), 10)
    task = task_of_arrays(config(train_samples=30), arrays, CPU)
    order = torch.randperm(50, generator=generator())[:30]
    kept = arrays["x_train"][order.numpy()].astype(np.float64)
    mean, std = kept.mean((0, 1, 2)), kept.std((0, 1, 2))
    index = torch.tensor([4, 0, 4])
    x, y = task.train.batch(index)
    np.testing.assert_allclose(x, ((kept[[4, 0, 4]] - mean) / std).transpose(0, 3, 1, 2), atol=1e-5)
    assert y.tolist() == arrays["y_train"][order[index].numpy()].tolist()
    x, _ = task.test.batch(torch.tensor([7]))
    np.testing.assert_allclose(x[0], ((arrays["x_test"][7] - mean) / std).transpose(2, 0, 1), atol=1e-5)
    assert (len(task.train), len(task.test)) == (30, 20)
    assert task.spec.input_shape == tuple(x.shape[1:]) == (3, 32, 32)


def test_augmentation_only_with_a_generator_and_the_same_for_the_same_seed():
    task = task_of_arrays(config(crop=4, flip=True), archives.noise(0, 40, 8, (32, 32, 3), 10), CPU)
    index = torch.arange(40)
    plain, labels = task.train.batch(index)
    first, first_labels = task.train.batch(index, generator(3))
    again, _ = task.train.batch(index, generator(3))
    other, _ = task.train.batch(index, generator(4))
    assert torch.equal(first, again)
    assert torch.equal(labels, first_labels)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)
    assert torch.equal(task.train.batch(index)[0], plain)


def test_image_size_resizes_each_batch():
    arrays = archives.noise(0, 6, 3, (32, 32, 3), 10)
    plain = task_of_arrays(config(), arrays, CPU)
    larger = task_of_arrays(config(image_size=48), arrays, CPU)
    x, _ = larger.train.batch(torch.arange(6))
    assert larger.spec.input_shape == (3, 48, 48)
    assert x.shape == (6, 3, 48, 48)
    # resizing is linear, so it may as well come after the normalisation
    expected = F.interpolate(plain.train.batch(torch.arange(6))[0], size=(48, 48), mode="bilinear")
    torch.testing.assert_close(x, expected, atol=1e-4, rtol=0)


def test_rows_as_a_sequence():
    arrays = archives.noise(0, 6, 3, (28, 28, 1), 10)
    image = task_of_arrays(config("mnist"), arrays, CPU)
    sequence = task_of_arrays(config("smnist", as_sequence=True), arrays, CPU)
    assert sequence.spec.kind == "sequence"
    assert sequence.spec.input_shape == (28, 28)
    index = torch.arange(6)
    x, _ = sequence.train.batch(index)
    for row in range(28):  # the sequence's entry number `row` is that row of the image, left to right
        assert torch.equal(x[:, row], image.train.batch(index)[0][:, 0, row])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"as_sequence": True}, "3 channels"),
        ({"crop": -1}, "data.crop"),
        ({"image_size": 0}, "data.image_size"),
        ({"train_samples": 0}, "data.train_samples"),
        ({"test_samples": -3}, "data.test_samples"),
    ],
)
def test_a_key_that_does_not_fit(keys, said):
    with pytest.raises(UserError, match=said):
        task_of_arrays(config(**keys), archives.noise(0, 6, 3, (32, 32, 3), 10), CPU)


def test_a_part_of_the_published_set_says_so(tmp_path):
    np.savez(tmp_path / "cifar10.npz", **archives.noise(0, 40, 30, (32, 32, 3), 4))
    note = image_task(config(root=tmp_path), CPU).note
    assert "4 of 10 classes" in note
    assert "40 of 50000 training images" in note
    assert "30 of 10000 test images" in note


REAL = {
    "mnist": (60000, 10000, (1, 28, 28), 10),
    "fashion_mnist": (60000, 10000, (1, 28, 28), 10),
    "smnist": (60000, 10000, (28, 28), 10),
    "cifar10": (50000, 10000, (3, 32, 32), 10),
    "cifar100": (50000, 10000, (3, 32, 32), 100),
    "tiny_imagenet": (100000, 10000, (3, 64, 64), 200),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_sets(name, real_root):
    train, test, shape, classes = REAL[name]
    task = image_task(config(name, real_root(name), as_sequence=name == "smnist"), CPU)
    x, y = task.train.batch(torch.arange(0, len(task.train), max(1, len(task.train) // 500)))
    assert tuple(x.shape[1:]) == shape == task.spec.input_shape
    assert abs(float(x.mean())) < 0.1
    assert float(x.std()) == pytest.approx(1, abs=0.1)
    assert len(y.unique()) > 0.9 * task.spec.outputs
    whole = (len(task.train), len(task.test), task.spec.outputs) == (train, test, classes)
    assert (task.note == "") == whole
    if not whole:
        assert f" of {train} training images" in task.note
