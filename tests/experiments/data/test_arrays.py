from __future__ import annotations

import archives
import numpy as np
import pytest

from experiments.data.arrays import read_images, write_images
from experiments.data.published import IMAGES
from experiments.errors import UserError


@pytest.fixture
def arrays():
    return archives.noise(0, 12, 5, (28, 28, 1), 10)


def test_what_is_written_is_read(tmp_path, arrays):
    write_images(tmp_path / "mnist.npz", arrays)
    read = read_images(tmp_path / "mnist.npz", IMAGES["mnist"])
    for key, values in arrays.items():
        assert read[key].dtype == values.dtype
        np.testing.assert_array_equal(read[key], values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("y_test"), "lacks y_test"),
        (lambda a: a.update(x_train=a["x_train"].astype(np.float32)), "x_train .* is float32 of shape"),
        (lambda a: a.update(x_train=a["x_train"][..., 0]), r"expected uint8 of shape \[n, 28, 28, 1\]"),
        (lambda a: a.update(x_test=a["x_test"][:, :20]), r"x_test .* of shape \[5, 20, 28, 1\]"),
        (lambda a: a.update(y_train=a["y_train"][:-1]), "one label per image"),
        (lambda a: a.update(y_train=a["y_train"].astype(np.float64)), "y_train .* is float64"),
        (lambda a: a.update(x_test=a["x_test"][:0], y_test=a["y_test"][:0]), "x_test .* is empty"),
        (lambda a: a.update(y_train=a["y_train"] + 90), "expected 0 to 9"),
        (lambda a: a.update(y_train=a["y_train"] - 10), "expected 0 to 9"),
    ],
)
def test_a_wrong_array_is_named(tmp_path, arrays, change, said):
    change(arrays)
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match=said):
        read_images(tmp_path / "mnist.npz", IMAGES["mnist"])


@pytest.mark.parametrize("part", [0, 1, 100, 5000, -10])
def test_a_truncated_file_is_named(tmp_path, arrays, part):
    path = tmp_path / "mnist.npz"
    write_images(path, arrays)
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(UserError, match=r"mnist.npz is not a whole npz file"):
        read_images(path, IMAGES["mnist"])


def test_another_kind_of_file_is_named(tmp_path, arrays):
    path = tmp_path / "mnist.npz"
    path.write_text("no arrays here")
    with pytest.raises(UserError, match="not a whole npz file"):
        read_images(path, IMAGES["mnist"])
    with path.open("wb") as file:
        np.save(file, arrays["x_train"])
    with pytest.raises(UserError, match="not a whole npz file"):
        read_images(path, IMAGES["mnist"])


def test_a_flipped_bit_is_seen(tmp_path, arrays):
    path = tmp_path / "mnist.npz"
    write_images(path, arrays)
    content = bytearray(path.read_bytes())
    content[3000] ^= 1  # inside x_train
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a whole npz file"):
        read_images(path, IMAGES["mnist"])
