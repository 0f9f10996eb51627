import errno
import json
from pathlib import Path

import pytest
from picochat_trainer.atomic import (
    file_sha256,
    new_folder,
    previous_of,
    remove_folder,
    remove_leftovers,
    write_json,
    write_text,
)
from support.syncs import Syncs


def test_write_text_replaces_the_file_and_leaves_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    write_text(path, "new\n")
    assert path.read_bytes() == b"new\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_takes_its_place_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch)
    write_text(tmp_path / "a.txt", "new\n")
    [(temporary, name, torn)] = syncs.renames
    assert temporary.startswith(".a.txt.tmp-") and (name, torn) == ("a.txt", [])
    assert syncs.is_safe(tmp_path)


def test_write_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"value": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text()) == {"value": 1}


def test_new_folder_keeps_the_one_before_as_previous(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for content in ("1", "2", "3"):
        with new_folder(folder) as temporary:
            (temporary / "file").write_text(content)
    assert (folder / "file").read_text() == "3"
    assert (previous_of(folder) / "file").read_text() == "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "checkpoint.previous"]


def test_a_failure_while_writing_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    with new_folder(folder) as temporary:
        (temporary / "file").write_text("good")
    with pytest.raises(RuntimeError, match="disk"), new_folder(folder) as temporary:
        (temporary / "file").write_text("half")
        raise RuntimeError("disk")
    assert (folder / "file").read_text() == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_full_disk_is_told_with_the_folder_that_was_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, new_folder(tmp_path / "tokens"):
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write to an open file raises it
    assert str(tmp_path / "tokens") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_previous_survives_when_only_it_is_there(tmp_path: Path) -> None:
    """The state between the two renames: the next write must not lose the only good copy before its own is in."""
    folder = tmp_path / "checkpoint"
    with new_folder(folder) as temporary:
        (temporary / "file").write_text("1")
    folder.rename(previous_of(folder))
    with new_folder(folder) as temporary:
        assert (previous_of(folder) / "file").read_text() == "1"
        (temporary / "file").write_text("2")
    assert (folder / "file").read_text() == "2"


def test_leftovers_of_a_killed_writer_are_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for name in ("checkpoint", ".checkpoint.tmp-abc", ".checkpoint_other.tmp-abc"):
        (tmp_path / name).mkdir()
    remove_leftovers(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".checkpoint_other.tmp-abc", "checkpoint"]


def test_remove_folder_takes_previous_along(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for _ in range(2):
        with new_folder(folder) as temporary:
            (temporary / "file").write_text("x")
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []


def test_file_sha256_is_the_known_digest(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
