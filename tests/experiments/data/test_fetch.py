from __future__ import annotations

import errno
import hashlib
import socket
import zipfile
from dataclasses import replace
from pathlib import Path

import archives
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data import convert, fetch, published
from experiments.data.arrays import read_images
from experiments.data.compat import torchvision
from experiments.data.download import git_blob_id
from experiments.data.published import IMAGES, SERIES, TEXTS, Remote
from experiments.errors import UserError

CONTENT = b"1,2,3,4,5,6,7,8\n"


def publish(monkeypatch: pytest.MonkeyPatch, *urls: str, check: str) -> None:
    """Let the exchange rates be published at ``urls``."""
    remote = replace(SERIES["exchange_rate"].file, urls=urls, check=check)
    monkeypatch.setitem(published.SERIES, "exchange_rate", replace(SERIES["exchange_rate"], file=remote))


def checks(content: bytes) -> dict[str, str]:
    blob = hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content)
    sums = {"sha256": hashlib.sha256(content), "md5": hashlib.md5(content), "git": blob}
    return {kind: f"{kind}:{value.hexdigest()}" for kind, value in sums.items()}


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_a_file_is_fetched_verified_and_kept(site, tmp_path, monkeypatch, kind):
    (site.folder / "rates.gz").write_bytes(CONTENT)
    publish(monkeypatch, f"{site.url}/rates.gz", check=checks(CONTENT)[kind])
    root = tmp_path / "new" / "root"
    fetch.ensure("exchange_rate", root)
    stored = root / "exchange_rate" / "exchange_rate.txt.gz"
    assert stored.read_bytes() == CONTENT
    assert [path.name for path in root.iterdir()] == ["exchange_rate"]
    (site.folder / "rates.gz").unlink()
    fetch.ensure("exchange_rate", root)  # it is there: nobody is asked


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
@pytest.mark.parametrize("content", [CONTENT[:-3], CONTENT + b"9", b""])
def test_another_content_is_refused(site, tmp_path, monkeypatch, kind, content):
    (site.folder / "rates.gz").write_bytes(content)
    check = checks(CONTENT)[kind]
    publish(monkeypatch, f"{site.url}/rates.gz", check=check)
    with pytest.raises(UserError, match=r"is not the published exchange_rate\.txt\.gz") as error:
        fetch.ensure("exchange_rate", tmp_path / "root")
    assert check.split(":")[1] in str(error.value)
    assert not (tmp_path / "root").exists()


def test_a_transfer_that_breaks_off_leaves_nothing(site, tmp_path, monkeypatch):
    (site.folder / "cut-rates.gz").write_bytes(CONTENT)
    publish(monkeypatch, f"{site.url}/cut-rates.gz", check=checks(CONTENT)["sha256"])
    with pytest.raises(UserError, match=r"no full answer from 127\.0\.0\.1"):
        fetch.ensure("exchange_rate", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_the_next_address_is_tried(site, tmp_path, monkeypatch):
    (site.folder / "rates.gz").write_bytes(CONTENT)
    dead = f"http://127.0.0.1:{closed_port()}/rates.gz"
    publish(monkeypatch, dead, f"{site.url}/gone.gz", f"{site.url}/rates.gz", check=checks(CONTENT)["sha256"])
    fetch.ensure("exchange_rate", tmp_path)
    assert (tmp_path / "exchange_rate" / "exchange_rate.txt.gz").is_file()


def test_offline_is_one_sentence_that_says_what_to_do(tmp_path, monkeypatch):
    publish(monkeypatch, f"http://127.0.0.1:{closed_port()}/rates.gz", check=checks(CONTENT)["sha256"])
    with pytest.raises(UserError) as error:
        fetch.ensure("exchange_rate", tmp_path / "root")
    said = str(error.value)
    for part in (
        str(tmp_path / "root" / "exchange_rate" / "exchange_rate.txt.gz"),
        "python scripts/fetch_data.py exchange_rate",
        "take data=digits",
    ):
        assert part in said
    assert "\n" not in said
    assert not (tmp_path / "root").exists()


def test_a_missing_page_is_named(site, tmp_path, monkeypatch):
    publish(monkeypatch, f"{site.url}/gone.gz", check=checks(CONTENT)["sha256"])
    with pytest.raises(UserError, match=r"answers 404 for .*/gone\.gz"):
        fetch.ensure("exchange_rate", tmp_path)


def test_a_text_comes_with_all_its_files_or_not_at_all(site, tmp_path, monkeypatch):
    contents = {f"ptb.{part}.txt": f"the {part} text\n".encode() for part in ("train", "test", "valid")}

    def remote(part: str) -> Remote:
        name = f"ptb.{part}.txt"
        return Remote(name, (f"{site.url}/{name}",), checks(contents[name])["sha256"])

    text = replace(TEXTS["ptb"], train=remote("train"), test=remote("test"), extra=(remote("valid"),))
    monkeypatch.setitem(published.TEXTS, "ptb", text)
    for name in ("ptb.train.txt", "ptb.test.txt"):
        (site.folder / name).write_bytes(contents[name])
    with pytest.raises(UserError, match=r"ptb\.valid\.txt"):
        fetch.ensure("ptb", tmp_path / "root")
    assert not (tmp_path / "root").exists()
    (site.folder / "ptb.valid.txt").write_bytes(contents["ptb.valid.txt"])
    fetch.ensure("ptb", tmp_path / "root")
    assert {path.name: path.read_bytes() for path in (tmp_path / "root" / "ptb").iterdir()} == contents


@pytest.fixture
def mnist(site, monkeypatch):
    """MNIST as torchvision knows it, but small and served here; what is in it."""
    arrays = archives.noise(0, 12, 5, (28, 28, 1), 10)
    kind = torchvision().datasets.MNIST
    monkeypatch.setattr(kind, "resources", archives.write_mnist(site.folder, arrays))
    monkeypatch.setattr(kind, "mirrors", [f"{site.url}/"])
    return arrays


@pytest.mark.parametrize("name", ["mnist", "smnist"])
def test_mnist_by_torchvisions_loader(mnist, tmp_path, name):
    fetch.ensure(name, tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["mnist.npz"]
    read = read_images(tmp_path / "root" / "mnist.npz", IMAGES["mnist"])
    for key, values in mnist.items():
        np.testing.assert_array_equal(read[key], values)


def test_a_corrupt_mnist_is_refused(mnist, site, tmp_path):
    path = site.folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="md5"):
        fetch.ensure("mnist", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_mnist_offline(mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision().datasets.MNIST, "mirrors", [f"http://127.0.0.1:{closed_port()}/"])
    with pytest.raises(UserError, match=r"cannot be fetched \(none of its mirrors answers\)") as error:
        fetch.ensure("mnist", tmp_path / "root")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("spoilt", [False, True])
def test_cifar10_by_torchvisions_loader(site, tmp_path, monkeypatch, spoilt):
    arrays = archives.noise(1, 7, 4, (32, 32, 3), 10)
    sums = archives.write_cifar10(site.folder, arrays)
    kind = torchvision().datasets.CIFAR10
    monkeypatch.setattr(kind, "url", f"{site.url}/{kind.filename}")
    monkeypatch.setattr(kind, "tgz_md5", "0" * 32 if spoilt else sums["archive"])
    monkeypatch.setattr(kind, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})
    root = tmp_path / "root"
    if spoilt:
        with pytest.raises(UserError, match="md5"):
            fetch.ensure("cifar10", root)
        assert not root.exists()
    else:
        fetch.ensure("cifar10", root)
        read = read_images(root / "cifar10.npz", IMAGES["cifar10"])
        for key, values in arrays.items():
            np.testing.assert_array_equal(read[key], values)


def publish_tiny_imagenet(monkeypatch, site, **keys) -> archives.Arrays:
    path = site.folder / "tiny-imagenet-200.zip"
    arrays = archives.write_tiny_imagenet(path, **keys)
    remote = Remote(path.name, (f"{site.url}/{path.name}",), f"md5:{archives.md5(path)}")
    monkeypatch.setattr(convert, "TINY_IMAGENET", remote)
    return arrays


def test_tiny_imagenet_from_its_archive(site, tmp_path, monkeypatch):
    arrays = publish_tiny_imagenet(monkeypatch, site)
    fetch.ensure("tiny_imagenet", tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["tiny_imagenet.npz"]
    read = read_images(tmp_path / "root" / "tiny_imagenet.npz", IMAGES["tiny_imagenet"])
    for key, values in arrays.items():
        np.testing.assert_array_equal(read[key], values)


@pytest.mark.parametrize("member", ["../x", "a/../../x", "/x", "C:/x", "..\\x", "\\x"])
def test_an_archive_that_climbs_out_is_refused(site, tmp_path, monkeypatch, member):
    publish_tiny_imagenet(monkeypatch, site, extra={member: b"gotcha"})
    with pytest.raises(UserError, match="leads out of the archive"):
        fetch.ensure("tiny_imagenet", tmp_path / "a" / "root")
    assert not (tmp_path / "a" / "root").exists()
    assert not (tmp_path / "a" / "x").exists()


def test_an_archive_with_a_link_is_refused(tmp_path):
    path = tmp_path / "linked.zip"
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo("tiny-imagenet-200/wnids.txt")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        convert.tiny_imagenet(path)


@given(part=st.integers(0, 60000))
def test_a_part_of_an_archive_is_refused(tmp_path_factory, part):
    folder = tmp_path_factory.getbasetemp()
    whole, cut = folder / "whole.zip", folder / "cut.zip"
    if not whole.exists():
        archives.write_tiny_imagenet(whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: min(part, len(content) - 1)])
    with pytest.raises(UserError, match=r"cut\.zip is not a whole Tiny-ImageNet archive"):
        convert.tiny_imagenet(cut)


def test_images_of_another_size_are_refused(site, tmp_path, monkeypatch):
    publish_tiny_imagenet(monkeypatch, site, side=63)
    with pytest.raises(UserError, match="not a whole Tiny-ImageNet archive"):
        fetch.ensure("tiny_imagenet", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_images_of_another_shape_are_refused(mnist, site, tmp_path, monkeypatch):
    wrong = archives.noise(0, 12, 5, (20, 28, 1), 10)
    monkeypatch.setattr(torchvision().datasets.MNIST, "resources", archives.write_mnist(site.folder, wrong))
    with pytest.raises(UserError, match=r"x_train of the published mnist is uint8 of shape \[12, 20, 28, 1\]"):
        fetch.ensure("mnist", tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_no_more(mnist, tmp_path, monkeypatch, code):
    def half(file, **arrays):
        Path(file).write_bytes(b"half")
        raise OSError(code, "as the system says")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(UserError, match="the disk is full" if code == errno.ENOSPC else "can be written to"):
        fetch.ensure("mnist", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    publish(monkeypatch, f"http://127.0.0.1:{closed_port()}/rates.gz", check=checks(CONTENT)["sha256"])
    (tmp_path / "mnist.npz").write_text("mine")
    with pytest.raises(UserError):
        fetch.ensure("exchange_rate", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mnist.npz"]


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "root").write_text("not a folder")
    with pytest.raises(UserError, match="could not be stored under"):
        fetch.fetch("exchange_rate", tmp_path / "root")


def test_git_blob_id_is_gits(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert git_blob_id(path) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's well-known empty blob
    path.write_bytes(b"what is up, doc?")
    assert git_blob_id(path) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # the example of the Pro Git book
