"""The profile of a teleport names its products, and a mistake is one sentence."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

MAIN = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "profile_teleport.py"))["main"]

SMALL = ["scale=smoke", "data=digits", "model=mlp", "model.widths=[24,24]"]


def test_the_table_is_of_one_event_and_is_written(tmp_path, capsys):
    path = tmp_path / "profile.txt"
    arguments = ["teleport=nullspace", "teleport.step=fixed", "teleport.cap=null", "teleport.lr=1e-9"]
    assert MAIN([*SMALL, *arguments, "--rows", "200", "--write", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("mlp on digits, teleport nullspace: batches 1, steps 8\n")
    assert path.read_text() == printed
    assert "aten::mm" in printed
    assert "[24, 24]" in printed  # products of the hidden layer, by shape


def test_mistakes_are_one_sentence(capsys):
    for arguments, said in (
        ([], "there is no teleport to profile"),
        (["teleport=nullspace", "model.widths=abc"], "model.widths"),
        (["teleport=nullspase"], "unknown option of teleport 'nullspase'"),
    ):
        assert MAIN([*SMALL, *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert said in printed.err


@pytest.mark.parametrize("option", ["--rows", "--threads"])
def test_no_rows_and_no_threads_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        MAIN([*SMALL, "teleport=nullspace", option, "0"])
    assert f"{option} must be a whole number from 1 to" in capsys.readouterr().err


def test_a_table_that_cannot_be_written_is_printed_all_the_same(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert MAIN([*SMALL, "teleport=nullspace", "--write", str(tmp_path / "file" / "profile.txt")]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("mlp on digits, teleport nullspace")
    assert printed.err.startswith("error: cannot write ")
