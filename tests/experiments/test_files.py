from __future__ import annotations

import csv
import io
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import files
from experiments.errors import UserError


def test_a_file_is_replaced_whole(tmp_path):
    files.write_text(tmp_path / "a" / "b.txt", "one")
    files.write_text(tmp_path / "a" / "b.txt", "two")
    assert (tmp_path / "a" / "b.txt").read_text() == "two"
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "b.bin"
    files.write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write '.*b\.bin'.*machine\.runs"):
            files.write_bytes(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_text(tmp_path / "runs" / "a.txt", "x")


def test_clean_removes_only_what_is_half_written(tmp_path):
    (tmp_path / ".curve.csv.17.tmp").write_text("half")
    (tmp_path / "curve.csv").write_text("whole")
    files.clean(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["curve.csv"]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(allow_nan=False), TEXTS), max_size=20))
def test_a_table_read_back_is_the_table_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    files.write_csv(path, ["number", "text"], [{"number": number, "text": text} for number, text in rows])
    read = list(csv.DictReader(io.StringIO(path.read_bytes().decode())))
    assert [(float(row["number"]), row["text"]) for row in read] == rows
