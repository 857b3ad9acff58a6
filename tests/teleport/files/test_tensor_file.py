"""Files of tensors: whole, with a checksum, and without code."""

from __future__ import annotations

import io
import os
import random
import resource

import pytest
import torch
from torch import nn

from teleport._files import tensor_file
from teleport._files.tensor_file import InvalidFile

CONTENT = {"weight": torch.arange(60.0).view(3, 20), "name": "net", "steps": [1, 2.5, None, True]}


def equal(one, other):
    return torch.equal(one["weight"], other["weight"]) and [one[key] for key in ("name", "steps")] == [
        other[key] for key in ("name", "steps")
    ]


@pytest.mark.parametrize("form", ["ours", "torch's", "torch's without CRC-32", "torch's of before 1.6"])
def test_a_file_is_read_and_it_is_known_whether_it_was_checked(tmp_path, form):
    path = tmp_path / "a.pt"
    if form == "ours":
        tensor_file.write(path, CONTENT)
    else:
        torch.serialization.set_crc32_options(form != "torch's without CRC-32")
        try:
            torch.save(CONTENT, path, _use_new_zipfile_serialization=form != "torch's of before 1.6")
        finally:
            torch.serialization.set_crc32_options(True)
    value, checked = tensor_file.read(path)
    assert equal(value, CONTENT)
    assert checked == (form in ("ours", "torch's"))


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_the_files_as_well(tmp_path, mmap):
    tensor_file.write(tmp_path / "a.pt", CONTENT)
    assert equal(torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap), CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("ours", [True, False])
def test_no_flipped_bit_and_no_cut_gives_other_numbers(tmp_path, ours):
    """Either the content is what was written, or the file is refused; never anything else."""
    path, draw = tmp_path / "a.pt", random.Random(0)
    tensor_file.write(path, CONTENT) if ours else torch.save(CONTENT, path)
    content, refused = path.read_bytes(), []
    for case in range(240):
        damaged = bytearray(content)
        if case % 8:
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(content)) :]
        path.write_bytes(damaged)
        try:
            assert equal(tensor_file.read(path).value, CONTENT)
        except InvalidFile as error:
            refused.append(str(error))
    assert not any("\n" in sentence for sentence in refused)
    assert len(refused) > (200 if ours else 100)


class Runs:
    def __reduce__(self):
        return os.mkdir, (Runs.place,)


@pytest.mark.parametrize("ours", [True, False])
def test_no_code_is_run(tmp_path, ours):
    Runs.place = str(tmp_path / "made")
    path = tmp_path / "a.pt"
    tensor_file.write(path, {"weight": Runs()}) if ours else torch.save({"weight": Runs()}, path)
    with pytest.raises(InvalidFile, match="holds more than tensors and plain values"):
        tensor_file.read(path)
    assert not (tmp_path / "made").exists()


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.pt"
    tensor_file.write(path, CONTENT)
    before, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"a\.pt"):
            tensor_file.write(path, {"weight": torch.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.pt"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.pt")
    tensor_file.write(tmp_path / "link.pt", CONTENT)
    assert (tmp_path / "link.pt").is_symlink()
    assert equal(tensor_file.read(tmp_path / "a.pt").value, CONTENT)


def test_a_missing_file_is_an_os_error(tmp_path):
    for place in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(OSError, match=str(place)):
            tensor_file.read(place)


def test_the_checksum_is_of_all_that_is_written():
    """Whatever sizes the writer hands over."""
    for size in (1, 5, 1000):
        file = io.BytesIO()
        tensor_file.write_to(file, nn.Linear(size, 2).state_dict())
        length = len(file.getvalue())
        assert tensor_file._checked(file)
        assert file.seek(0, io.SEEK_END) == length
