"""Children and what is asked of them. This side imports nothing large, because children inherit its peak memory."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.compare.cases import Case, Configuration

# Seconds, or bytes, or what went wrong.
Result = float | str
ROOT = Path(__file__).parents[2]
# Some frameworks' threads still spin for a while after their work, onnxruntime's for 40 ms.
SETTLING = 0.06
LEAST, LONGEST = 3, 3.0  # repetitions, and seconds of a configuration after which so few are enough


class Process:
    """A configuration's child, which is started by the first question."""

    def __init__(self, configuration: Configuration, threads: int, **environment: str) -> None:
        self.name = configuration.name
        settings = {**configuration.settings, "threads": threads}
        counts = dict.fromkeys(("JUANJI_THREADS", "OMP_NUM_THREADS", "NPROC"), str(threads))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compare.child", configuration.backend, json.dumps(settings)],
            cwd=ROOT,
            # Installed packages have their modules as bytecode; juanji's are to be kept as such, too.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **counts, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.requests, self.replies = self.process.stdin, self.process.stdout

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        try:
            self.requests.write(json.dumps({"do": do, **arguments}) + "\n")
            self.requests.flush()
            line = self.replies.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": f"the process ended with {self.process.wait()}"}

    def close(self) -> None:
        self.requests.close()
        self.process.wait()


@contextlib.contextmanager
def processes(configurations: Sequence[Configuration], threads: int, **environment: str) -> Iterator[list[Process]]:
    """Children of the configurations, all with so many threads; ended afterwards."""
    started = [Process(configuration, threads, **environment) for configuration in configurations]
    try:
        yield started
    finally:
        for process in started:
            process.close()


def interleaved(running: Sequence[Process], case: Case, repetitions: int) -> list[Result]:
    """The median time of the case in each child, asked in turn for one repetition after the other."""
    replies = [process.ask("prepare", case=asdict(case)) for process in running]
    errors = {i: reply["error"] for i, reply in enumerate(replies) if "error" in reply}
    times: dict[int, list[float]] = {i: [] for i in range(len(running)) if i not in errors}
    begin = time.perf_counter()
    for done in range(repetitions):
        if done >= LEAST and time.perf_counter() - begin > LONGEST * len(times):
            break
        for i in list(times):
            time.sleep(SETTLING)
            reply = running[i].ask("repeat")
            if "error" in reply:
                errors[i] = reply["error"]
                del times[i]
            else:
                times[i].append(reply["seconds"])
    return [errors[i] if i in errors else statistics.median(times[i]) for i in range(len(running))]


def alone(configuration: Configuration, threads: int, do: str, case: Case, **environment: str) -> Result:
    """The answer of a fresh process to one question."""
    with processes([configuration], threads, **environment) as (process,):
        reply = process.ask(do, case=asdict(case))
    return reply["error"] if "error" in reply else next(iter(reply.values()))


def first_steps(configuration: Configuration, threads: int, case: Case) -> list[Result]:
    """The times of the first run in a fresh process, with an empty cache and with what that one left there; of the run
    that follows, and how much longer the first one took than that."""
    with tempfile.TemporaryDirectory() as cache:
        places = {"JUANJI_CACHE": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
        cold = alone(configuration, threads, "first", case, **places)
        with processes([configuration], threads, **places) as (process,):
            replies = process.ask("first", case=asdict(case)), process.ask("repeat")
    errors = [reply["error"] for reply in replies if "error" in reply]
    if errors:
        return [cold, *errors[:1] * 3]
    first, following = (reply["seconds"] for reply in replies)
    return [cold, first, following, first - following]


def scaling(configurations: Sequence[Configuration], case: Case, repetitions: int) -> list[list[Result]]:
    """The times of each configuration with one thread and with two, interleaved."""
    with processes(configurations, 1) as one, processes(configurations, 2) as two:
        times = interleaved([*one, *two], case, repetitions)
    count = len(configurations)
    return [[times[i], times[i + count]] for i in range(count)]


def timed(
    configurations: Sequence[Configuration],
    threads: int,
    cases: Sequence[Case],
    repetitions: int,
    **environment: str,
) -> list[list[Result]]:
    """A row of times for each case, a column for each configuration."""
    rows = []
    with processes(configurations, threads, **environment) as running:
        for case in cases:
            print(f"measuring {case.name} {case.face}", file=sys.stderr, flush=True)
            rows.append(interleaved(running, case, repetitions))
    return rows
