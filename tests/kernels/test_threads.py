"""The threads of the engine: every phase complete before the next one, whatever the number of threads."""

import os
import signal
import subprocess
import sys
import threading
import time

import llvmlite.binding as llvm
import numpy as np
import pytest

import juanji as jj
from juanji.engine import platform, threads, walker
from juanji.engine.threads import Pool, Table
from juanji.errors import ArgumentError

# advance: words lo..hi of the buffer must hold one number; replace each by it + 1, and by -1 where they disagree.
# multiply: the product of the two floats at the buffer goes behind them.
KERNELS = """
define void @advance(ptr %words, i64 %lo, i64 %hi) {
enter:
  %expected = load i64, ptr %words
  %start = getelementptr i64, ptr %words, i64 1
  br label %loop
loop:
  %i = phi i64 [ %lo, %enter ], [ %next, %loop ]
  %place = getelementptr i64, ptr %start, i64 %i
  %old = load i64, ptr %place
  %same = icmp eq i64 %old, %expected
  %more = add i64 %old, 1
  %new = select i1 %same, i64 %more, i64 -1
  store i64 %new, ptr %place
  %next = add i64 %i, 1
  %again = icmp slt i64 %next, %hi
  br i1 %again, label %loop, label %leave
leave:
  ret void
}
define void @check(ptr %words, i64 %lo, i64 %hi) {
enter:
  %expected = load i64, ptr %words
  %after = add i64 %expected, 1
  %start = getelementptr i64, ptr %words, i64 1
  br label %loop
loop:
  %i = phi i64 [ %lo, %enter ], [ %next, %loop ]
  %good = phi i64 [ %after, %enter ], [ %good1, %loop ]
  %place = getelementptr i64, ptr %start, i64 %i
  %word = load i64, ptr %place
  %same = icmp eq i64 %word, %after
  %good1 = select i1 %same, i64 %good, i64 -7
  %next = add i64 %i, 1
  %again = icmp slt i64 %next, %hi
  br i1 %again, label %loop, label %leave
leave:
  store i64 %good1, ptr %words
  ret void
}
define void @multiply(ptr %floats, i64 %lo, i64 %hi) {
  %2 = getelementptr float, ptr %floats, i64 1
  %3 = getelementptr float, ptr %floats, i64 2
  %a = load volatile float, ptr %floats
  %b = load volatile float, ptr %2
  %c = fmul float %a, %b
  store float %c, ptr %3
  ret void
}
define void @spin(ptr %words, i64 %lo, i64 %hi) {
enter:
  br label %loop
loop:
  %i = phi i64 [ %lo, %enter ], [ %next, %loop ]
  store volatile i64 %i, ptr %words
  %next = add i64 %i, 1
  %again = icmp slt i64 %next, %hi
  br i1 %again, label %loop, label %leave
leave:
  ret void
}
"""
ENGINE = threads.build(KERNELS)
ADVANCE, CHECK, MULTIPLY, SPIN = map(ENGINE.get_function_address, ("advance", "check", "multiply", "spin"))
THREADS = (1, 2, 3, 8)


class Steps:
    """A plan of `count` steps over `width` words: `parts` entries advance all words, then one checks all of them."""

    def __init__(self, count, parts, width=24):
        self.engine = ENGINE  # a daemon thread may outlive this module
        self.words = np.zeros(1 + width, np.int64)
        address, part = self.words.ctypes.data, width // parts
        step = [[ADVANCE, address, i * part, (i + 1) * part] for i in range(parts)] + [[CHECK, address, 0, width]]
        n = parts + 1
        phases = [phase for k in range(count) for phase in ([k * n, k * n + parts], [k * n + parts, k * n + n])]
        self.table, self.count = Table(step * count, phases), count

    def run(self, pool, times=1):
        for _ in range(times):
            self.words[:] = 0
            pool.run(self.table)
            assert (self.words == self.count).all()


@pytest.fixture(params=THREADS)
def pool(request):
    pool = Pool(request.param)
    yield pool
    pool.close()


@pytest.mark.parametrize("parts", [1, 2, 24])
@pytest.mark.parametrize("count", [1, 3000])
def test_every_phase_is_complete_before_the_next(pool, count, parts):
    Steps(count, parts).run(pool, times=3)


def test_more_threads_than_processors_neither_hang_nor_crawl():
    pool, steps = Pool(8 * (os.cpu_count() or 1)), Steps(1000, 12)
    start = time.perf_counter()
    steps.run(pool)
    assert time.perf_counter() - start < 10  # milliseconds as a rule; a pool that spins takes minutes
    pool.close()


def test_workers_that_sleep_are_woken(pool):
    steps = Steps(20, 8)
    for _ in range(20):
        time.sleep(0.002)
        steps.run(pool)


def test_threads_sleep_while_others_are_in_long_entries(pool):
    words = np.zeros(16, np.int64)
    places = words.ctypes.data, words.ctypes.data + 64
    lengths = [3_000_000, 10, 10, 3_000_000] * 3
    entries = [[SPIN, places[i % 2], 0, length] for i, length in enumerate(lengths)]
    pool.run(Table(entries, [[i, i + 2] for i in range(0, len(entries), 2)]))
    assert (words[0], words[8]) == (9, 2_999_999)


def test_a_part_of_a_table(pool):
    steps = Steps(10, 4)
    pool.run(steps.table, 0, 8)
    assert (steps.words == 4).all()
    pool.run(steps.table, 8)
    pool.run(steps.table, 20)
    assert (steps.words == 10).all()


def test_two_python_threads_share_a_pool(pool):
    plans = [Steps(300, 6) for _ in range(4)]
    callers = [threading.Thread(target=plan.run, args=(pool, 10)) for plan in plans]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all((plan.words == plan.count).all() for plan in plans)


def test_denormals_are_zero_in_kernels_and_only_there(pool):
    small = np.array([[1e-30, 1e-10, 1], [1e-40, 1e10, 1]] * 32, np.float32)
    table = Table([[MULTIPLY, row.ctypes.data, 0, 1] for row in small], [[0, len(small)]])
    pool.run(table)
    assert (small[:, 2] == 0).all()
    assert np.float32(1e-30) * np.float32(1e-10) > 0


@pytest.mark.parametrize("phases", [[[0, 0]], [[-1, 1]], [[0, 3]], [[1, 0]]])
def test_a_phase_outside_the_entries_is_refused(phases):
    with pytest.raises(ArgumentError, match="phase"):
        Table([[SPIN, 0, 0, 1]] * 2, phases)


@pytest.mark.parametrize(("first", "last"), [(-1, None), (0, 7), (3, 2), (7, None)])
def test_a_part_outside_the_table_is_refused(first, last):
    with pytest.raises(ArgumentError, match="phases"):
        Steps(3, 2).table.part(first, last)


def test_a_closed_pool_has_no_threads_left():
    before = threading.active_count()
    pool = Pool(4)
    assert threading.active_count() == before + 3
    del pool
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_computes_whoever_computed_when_it_was_forked():
    net, x = jj.models.create("lenet5").eval(), np.zeros((256, 28, 28, 1), np.float32)
    compiled, ended = jj.compile(net), threading.Event()
    expected = np.asarray(compiled(x))

    def compute():
        while not ended.is_set():
            compiled(x)

    busy = threading.Thread(target=compute)
    busy.start()
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                os._exit(0 if (np.asarray(compiled(x)) == expected).all() else 1)
            deadline = time.monotonic() + 60
            while not (done := os.waitpid(child, os.WNOHANG))[0]:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            assert done[1] == 0
    finally:
        ended.set()
        busy.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_computes_with_threads_of_its_own(monkeypatch):
    monkeypatch.setenv("JUANJI_THREADS", "3")
    threads.pool.cache_clear()
    mine, steps = threads.pool(), Steps(200, 6)
    steps.run(mine)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        steps.run(mine)  # without workers
        steps.run(threads.pool(), 3)
        os._exit(0 if threads.pool() is not mine else 1)
    assert os.waitpid(child, 0)[1] == 0
    steps.run(mine)
    threads.pool.cache_clear()


EXITS = {
    "spinning": "",
    "sleeping": "import time; time.sleep(0.05)",
    "forked": "import os, sys; child = os.fork(); child and sys.exit(os.waitpid(child, 0)[1]); steps.run(pool())",
    "running": "import threading; threading.Thread(target=steps.run, args=(pool(), 200), daemon=True).start()",
}


@pytest.mark.parametrize("name", EXITS)
def test_the_interpreter_ends(name):
    if name == "forked" and not hasattr(os, "fork"):
        pytest.skip("no fork")
    lines = [
        "import runpy",
        f"Steps = runpy.run_path({__file__!r})['Steps']",
        "from juanji.engine.threads import pool",
        "steps = Steps(50, 6)",
        "steps.run(pool())",
    ]
    environment = os.environ | {"JUANJI_THREADS": "3"}
    command = [sys.executable, "-W", "ignore", "-c", "\n".join([*lines, EXITS[name]])]
    ended = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_interrupt_is_raised_after_the_run():
    pool, steps = Pool(2), Steps(1, 2)
    words = np.zeros(1, np.int64)
    slow = Table([[SPIN, words.ctypes.data, 0, 100_000_000]], [[0, 1]])
    timer = threading.Timer(0.02, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pool.run(slow)
    assert words == 99_999_999
    steps.run(pool)
    pool.close()


@pytest.mark.parametrize("processor", ["x86_64", "aarch64", "riscv64"])
def test_the_text_is_valid_for_every_processor(processor):
    llvm.parse_assembly(walker.text(processor, [1, 2], 3, 4)).verify()


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("12", 12), (" 3 ", 3)])
def test_the_number_of_threads_can_be_set(monkeypatch, text, number):
    monkeypatch.setenv("JUANJI_THREADS", text)
    assert platform.threads() == number


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²"])
def test_nonsense_is_no_number_of_threads(monkeypatch, text):
    monkeypatch.setenv("JUANJI_THREADS", text)
    with pytest.raises(ArgumentError, match="JUANJI_THREADS"):
        platform.threads()


GROUPS = [
    ("0::/", {"cpu.max": "150000 100000"}, 1.5),
    ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
    ("0::/elsewhere", {"cpu.max": "200000 100000"}, 2),
    ("4:cpu,cpuacct:/x", {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2.5),
    ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
    ("7:memory:/\n0::/", {}, float("inf")),
]


@pytest.mark.parametrize(("membership", "files", "limit"), GROUPS)
def test_the_quota_of_control_groups(tmp_path, membership, files, limit):
    (tmp_path / "membership").write_text(membership + "\n")
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text + "\n")
    assert platform.quota(tmp_path / "root", tmp_path / "membership") == limit


def test_without_settings_the_number_of_threads_is_positive(monkeypatch, tmp_path):
    monkeypatch.delenv("JUANJI_THREADS", raising=False)
    assert 1 <= platform.threads() <= platform.processors()
    assert platform.quota(tmp_path, tmp_path / "none") == float("inf")


@pytest.mark.parametrize("size", [0, 1, 5000, (2 << 20) + 1])
def test_memory_is_aligned_zeroed_and_outlives_its_maker(size):
    memory = platform.allocate(size)
    assert (memory.size, memory.address % platform.HUGE_PAGE) == (size, 0)
    view = memory.view
    del memory
    assert not view.any()
    view[:] = 7
    assert (view == 7).all()
