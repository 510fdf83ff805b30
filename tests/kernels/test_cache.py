"""Machine code on disk: kept, found again, never trusted blindly, never in the way."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import juanji as jj
from juanji.kernels import cache, machine

TEXT = "define i64 @kernel() {{\n  ret i64 {}\n}}\n"

# What a process computes, how many kernels it wrote machine code for, and how many it loaded.
PROGRAM = """
import numpy as np
import juanji as jj
from juanji.kernels import machine
count, write = [0], machine.optimised
machine.optimised = lambda *args: (count.__setitem__(0, count[0] + 1), write(*args))[1]
f = jj.compile(lambda x, w: jj.softmax(jj.conv(x, w, padding=1)).sum((1, 2)))
x, w = np.arange(100.0).reshape(1, 5, 5, 4) / 50, np.arange(72.0).reshape(3, 3, 4, 2) / 70
print(f(x, w).tolist())
print(*count, len(machine.LOADED))
"""


def process(folder, program=PROGRAM):
    """(kernels written, kernels loaded, result) of a process that keeps its code in `folder`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=os.environ | {"JUANJI_CACHE": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, last = done.stdout.splitlines()
    written, loaded = map(int, last.split())
    return written, loaded, first


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of this process."""
    place = tmp_path / "cache"
    monkeypatch.setenv("JUANJI_CACHE", str(place))
    return place


@pytest.fixture
def written(monkeypatch):
    """The texts that machine code is written for."""
    texts, original = [], machine.optimised

    def counted(text, isa):
        texts.append(text)
        return original(text, isa)

    monkeypatch.setattr(machine, "optimised", counted)
    return texts


def code(number):
    from juanji.kernels import isa

    kernel = machine.Kernel.of(TEXT.format(number), isa.current())
    machine.prepare([kernel], isa.current())
    return machine.CODES.pop(kernel.name)


def test_the_second_process_writes_no_machine_code(tmp_path):
    place = tmp_path / "cache"
    written, loaded, result = process(place)
    assert 0 < written == loaded
    assert len(list(place.iterdir())) >= loaded
    assert process(place) == (0, loaded, result)


def test_recipes_go_with_the_text_of_the_program(tmp_path):
    """A changed program finds none that another one kept, but the code of kernels that are still the same."""
    place = tmp_path / "cache"
    _, loaded, result = process(place)
    before = len(list(place.iterdir()))
    changed = "from juanji.kernels import recipes\nrecipes.program = lambda: 'changed'\n" + PROGRAM
    assert process(place, changed) == (0, loaded, result)
    assert len(list(place.iterdir())) > before


def test_a_recipe_without_its_code_is_not_used(tmp_path):
    place = tmp_path / "cache"
    written, loaded, result = process(place)
    codes = [entry for entry in place.iterdir() if b"kernels" not in entry.read_bytes()]
    assert len(codes) == written
    for entry in codes:
        entry.unlink()
    assert process(place) == (written, loaded, result)


def test_much_is_shared_out_to_other_processes(folder, written, monkeypatch):
    from juanji.kernels import isa

    monkeypatch.setattr(machine, "MUCH", 0)
    kernels = [machine.Kernel.of(TEXT.format(number), isa.current()) for number in range(100, 400)]
    machine.prepare(kernels, isa.current(), 3)
    shared = [machine.CODES.pop(kernel.name) for kernel in kernels]
    assert 0 < len(written) < len(kernels)
    assert shared == [machine.object_code(kernel.text, isa.current()) for kernel in kernels]


@pytest.mark.parametrize("program", ["/no/such/python", "/bin/false"])
def test_processes_that_fail_leave_their_share_to_this_one(program, folder, written, monkeypatch):
    from juanji.kernels import isa

    monkeypatch.setattr(machine, "MUCH", 0)
    monkeypatch.setattr(machine.sys, "executable", program)
    kernels = [machine.Kernel.of(TEXT.format(number), isa.current()) for number in range(30)]
    machine.prepare(kernels, isa.current(), 2)
    assert len(written) == 30
    assert all(machine.CODES.pop(kernel.name) for kernel in kernels)


def test_a_second_plan_writes_none_for_kernels_that_are_loaded(folder, written):
    f = jj.compile(lambda x, w: jj.relu(jj.linear(x, w)))
    w = np.ones((31, 37), np.float32)
    f(np.ones((64, 37), np.float32), w)
    first = len(written)
    assert first
    f(np.ones((64, 37), np.float32), w)
    jj.compile(lambda x, w: jj.relu(jj.linear(x, w)))(np.ones((64, 37), np.float32), w)
    assert len(written) == first


def test_an_entry_is_found_again(folder, written):
    assert code(1) == code(1) != code(2)
    assert len(written) == 2
    assert len(list(folder.iterdir())) == 2


def flip_a_bit(data):
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


DAMAGES = {
    "a bit": flip_a_bit,
    "truncated": lambda data: data[: len(data) // 2],
    "headless": lambda data: data[len(cache.MAGIC) :],
    "only a head": lambda data: data[: len(cache.MAGIC) + 7],
    "empty": lambda data: b"",
    "another digest": lambda data: cache.MAGIC + bytes(32) + data[len(cache.MAGIC) + 32 :],
    "another version": lambda data: cache.MAGIC.replace(b"\x01", b"\x02") + data[len(cache.MAGIC) :],
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_written_anew(damage, folder, written):
    want = code(3)
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert code(3) == want
    assert len(written) == 2
    assert entry.read_bytes() == whole


def test_an_entry_that_is_a_folder_is_passed_over(folder, written):
    want = code(4)
    (entry,) = folder.iterdir()
    entry.unlink()
    entry.mkdir()
    assert code(4) == want
    assert list(folder.iterdir()) == [entry]


def test_entries_are_for_one_instruction_set_and_one_text():
    names = [cache.key(*parts) for parts in (("a", "b"), ("a", "c"), ("ab", ""), ("a", "b", ""))]
    assert len(set(names)) == 4
    assert names[0] == cache.key("a", "b")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_not_used(mode, folder, written):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.warns(UserWarning, match="others can write to it"):
        code(5)
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    code(5)
    assert len(written) == 2
    assert len(list(folder.iterdir())) == 1
    folder.chmod(mode)
    with pytest.warns(UserWarning, match="others can write to it"):
        code(5)
    assert len(written) == 3


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_new_folder_is_the_owners_alone(folder):
    code(6)
    assert folder.stat().st_mode & 0o077 == 0


def test_a_place_that_cannot_be_a_folder_means_no_cache(tmp_path, monkeypatch, written):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("JUANJI_CACHE", str(place))
        code(7)
        code(7)
    assert len(written) == 4
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("failing", ["mkstemp", "replace"])
def test_a_disk_that_cannot_be_written_to_means_no_cache(failing, folder, written, monkeypatch):
    def refuse(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr({"mkstemp": cache.tempfile, "replace": cache.os}[failing], failing, refuse)
    want = code(8)
    assert code(8) == want
    assert len(written) == 2
    assert list(folder.iterdir()) == []


def test_many_write_at_once(tmp_path):
    """Processes that begin together all get right results, and leave whole entries and nothing else."""
    place = tmp_path / "cache"
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: process(place), range(3)))
    assert len({result for _, _, result in found}) == 1
    assert all(len(entry.name) == 64 for entry in place.iterdir())
    assert process(place)[0] == 0


def test_threads_write_the_same_entry(folder):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: cache.save("name", bytes([i]) * 1000), range(64)))
    assert [entry.name for entry in folder.iterdir()] == ["name"]
    assert len(set(cache.load("name"))) == 1


def test_clearing(folder):
    assert cache.clear() == (0, 0)
    code(9), code(10)
    size = sum(entry.stat().st_size for entry in folder.iterdir())
    assert cache.clear() == (2, size)
    assert not list(folder.iterdir())
    code(9)
    stranger = folder / "picture.png"
    stranger.write_bytes(b"not ours")
    assert cache.clear()[0] == 1
    assert list(folder.iterdir()) == [stranger]


@pytest.mark.parametrize(
    ("system", "variables", "end"),
    [
        ("linux", {"JUANJI_CACHE": "/a/b"}, "/a/b"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/juanji"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/me/.cache/juanji"),
        ("linux", {"JUANJI_CACHE": ""}, "/home/me/.cache/juanji"),
        ("darwin", {}, "/home/me/Library/Caches/juanji"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/juanji/cache"),
        ("win32", {}, "/home/me/AppData/Local/juanji/cache"),
    ],
)
def test_where_entries_lie(system, variables, end, monkeypatch):
    for name in ("JUANJI_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me", "USERPROFILE": "/home/me"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache.sys, "platform", system)
    assert cache.folder().as_posix() == end
