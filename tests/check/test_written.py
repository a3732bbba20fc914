"""Files are written wholly or not at all, and never through a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.check import written


def test_a_link_gives_way_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    link = tmp_path / "failure.txt"
    link.symlink_to(kept)
    written.write(link, "new")
    assert (kept.read_text(), link.read_text(), link.is_symlink()) == ("kept", "new", False)


def test_what_cannot_be_written_wholly_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.json"
    written.write(file, "old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="No space"):
        written.write(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_file_is_read_wholly_up_to_the_longest_there_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "LONGEST", 100)
    file = tmp_path / "file"
    for size in 0, 99, 100:
        file.write_bytes(bytes(range(size)))
        assert written.read(file) == bytes(range(size))
    file.write_bytes(bytes(101))
    with pytest.raises(OSError, match="File too large") as refused:
        written.read(file)
    assert refused.value.errno == errno.EFBIG


def test_a_file_has_the_rights_that_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "by hand").touch()
    written.write(tmp_path / "written", "")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "by hand").stat().st_mode


def test_a_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        written.write(tmp_path / "directory", "text")
    assert os.listdir(tmp_path) == ["directory"]


def test_what_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("é")
    (tmp_path / "bad").write_bytes(b"\xff")
    assert written.text(str(tmp_path / "good")) == "é"
    for name, said in (
        (tmp_path / "missing", "missing cannot be read: No such file or directory"),
        (tmp_path / "bad", "bad is not text in UTF-8: "),
        ("no\0name", r"'no\x00name' is not a name of a file: "),
    ):
        with pytest.raises(ValueError) as raised:
            written.text(name)
        assert said in str(raised.value)


def test_what_has_the_name_of_the_part_by_chance_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    part, kept = tmp_path / f".{'00' * 8}.part", tmp_path / "kept"
    kept.write_text("kept")
    for make in (part.symlink_to, part.hardlink_to):
        make(kept)
        with pytest.raises(FileExistsError):
            written.write(tmp_path / "new", "new")
        assert kept.read_text() == "kept"
        part.unlink()
    assert os.listdir(tmp_path) == ["kept"]
