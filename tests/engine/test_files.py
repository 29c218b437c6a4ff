"""Files are written whole or not at all; a full or read-only disk and a missing path are explained."""

import errno
import os
import shutil

import pytest

from engine.files import UNFINISHED, missing_path, remove_unfinished, write_atomically


def write(path, text="new", **options):
    write_atomically(path, lambda temporary: temporary.write_text(text), **options)


@pytest.fixture
def path(tmp_path):
    """A file that is there already, alone in its folder."""
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_text("old")
    return path


def is_as_it_was(path):
    return path.read_text() == "old" and os.listdir(path.parent) == [path.name]


class TestWriting:
    @pytest.mark.parametrize("name", ["folder/file", "a/b/file"])
    def test_an_old_file_is_replaced_and_folders_are_made(self, path, tmp_path, name):
        write(tmp_path / name)
        assert (tmp_path / name).read_text() == "new" and os.listdir((tmp_path / name).parent) == ["file"]

    def test_an_interrupted_write_leaves_the_old_file(self, path):
        def interrupted(temporary):
            temporary.write_text("ne")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, interrupted)
        assert is_as_it_was(path)

    @pytest.mark.parametrize("durable", [True, False])
    def test_it_is_on_the_disk_before_it_gets_its_name(self, path, monkeypatch, durable):
        """A power cut must not leave the new name with nothing behind it."""
        steps, replace = [], os.replace
        monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append(os.fstat(descriptor)))
        monkeypatch.setattr(os, "replace", lambda *paths: [steps.append("replace"), replace(*paths)])
        write(path, durable=durable)
        if not durable:
            assert steps == ["replace"]
            return
        (file, replaced, folder), names = steps, (path, path.parent)
        assert replaced == "replace"
        assert [status.st_ino for status in (file, folder)] == [name.stat().st_ino for name in names]

    def test_a_file_system_without_sync(self, path, monkeypatch):
        monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
        write(path)
        assert path.read_text() == "new"

    @pytest.mark.parametrize("target", ["file", "new"])
    def test_a_link_stays_one(self, path, target):
        path.with_name("link").symlink_to(target)
        write(path.with_name("link"))
        assert path.with_name("link").is_symlink() and path.with_name(target).read_text() == "new"

    def test_a_device_or_a_pipe_is_written_to_directly(self, tmp_path):
        """A rename by root would replace it."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reads = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        write(pipe)
        assert os.read(reads, 10) == b"new" and pipe.is_fifo()
        os.close(reads)

    def test_what_killed_processes_left_is_removed_from_a_runs_folder(self, tmp_path):
        left = [tmp_path / f".a.1.2{UNFINISHED}", tmp_path / "model" / f".b.1.2{UNFINISHED}"]
        others = [tmp_path / "a", tmp_path / "model" / ".b", tmp_path / "run" / "model" / f".c.1.2{UNFINISHED}"]
        for path in (*left, *others):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        remove_unfinished(tmp_path)
        assert not any(map(os.path.exists, left)) and all(map(os.path.exists, others))


def failing(number, **about):
    def fail(*_):
        raise OSError(number, os.strerror(number), *about.values())

    return fail


class TestFaults:
    """Simulated; tests/robustness/test_full_disk.py has real disks, where the user may mount them."""

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_full_disk(self, path, monkeypatch, number, step):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, failing(number))
            with pytest.raises(OSError) as caught:
                write(path)
        message = rf"^{path} could not be written \({os.strerror(number)}\)\. [\d,]+\.\d MB are free\. "
        assert caught.match(message + r"Free some space, then repeat the command\.$")
        assert caught.value.errno == number
        assert is_as_it_was(path)
        write(path)
        assert path.read_text() == "new"

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
    def test_a_write_protected_folder(self, path, monkeypatch, number):
        monkeypatch.setattr(os, "replace", failing(number))
        with pytest.raises(OSError) as caught:
            write(path)
        assert str(caught.value) == (
            f"{path} could not be written ({os.strerror(number)}). "
            "Change the permissions of its folder, or choose another folder, then repeat the command."
        )
        assert type(caught.value) is type(OSError(number, ""))
        assert is_as_it_was(path)

    def test_another_fault_stays(self, path, monkeypatch):
        monkeypatch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(OSError, match=r"^\[Errno 5\] Input/output error$"):
            write(path)
        assert is_as_it_was(path)

    def test_so_does_that_of_a_file_which_is_read(self, path, tmp_path, monkeypatch):
        source = tmp_path / "elsewhere" / "source"
        monkeypatch.setattr(shutil, "copyfile", failing(errno.EACCES, filename=str(source)))
        with pytest.raises(PermissionError, match=f"Permission denied: '{source}'"):
            write_atomically(path, lambda temporary: shutil.copyfile(source, temporary))

    def test_so_does_one_that_names_the_file_already(self, path, monkeypatch):
        monkeypatch.setattr(os, "replace", failing(errno.ENOSPC))
        with pytest.raises(OSError, match=f"^{path} could not be written"):
            write_atomically(path.with_name("outer"), lambda temporary: write(path))


def test_a_missing_path_is_named_with_the_part_that_exists(tmp_path):
    message = missing_path(tmp_path / "a" / "b.txt", "The file", "Make it.")
    assert message == f"The file {tmp_path}/a/b.txt does not exist (the part that does: {tmp_path}). Make it."
