import os
import stat

import pytest

from i2l_meshnet.errors import FileError
from i2l_meshnet.files import atomic_path


def test_the_file_appears_whole_with_ordinary_permissions(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_an_error_leaves_the_old_file_and_no_remains(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(FileError, match=r"cannot write .*file.a\.txt.*choose a folder"),
        atomic_path(tmp_path / "file" / "a.txt"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_in_one_line(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(FileError, match="Permission denied"), atomic_path(tmp_path / "a.txt"):
        pass
