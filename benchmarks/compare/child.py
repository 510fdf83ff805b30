"""The process of one configuration: `python -m benchmarks.compare.child BACKEND SETTINGS`.

It reads requests, one JSON object a line, and answers each with one: {"do": "prepare", "case": …} makes a case ready
and warm, {"do": "repeat"} times one repetition of it, {"do": "first", "case": …} times a first run without warming up,
{"do": "memory", "case": …} gives the most memory the process ever had after a few runs.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

# A repetition lasts at least so many seconds, by repeating what is quicker; warming up does, too.
SHORTEST = 0.03
WARM = 0.3


class Child:
    def __init__(self, backend: str, settings: dict[str, Any]) -> None:
        self.backend = importlib.import_module(f"benchmarks.compare.{backend}")
        self.settings = settings
        self.run: Callable[[], object] = int
        self.times = 1

    def seconds(self, times: int = 1) -> float:
        start = time.perf_counter()
        for _ in range(times):
            self.run()
        return time.perf_counter() - start

    def ready(self, case: dict[str, Any]) -> None:
        self.run = int  # frees the case before
        self.run = self.backend.prepare(case, self.settings)

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        self.ready(case)
        self.seconds()
        taken = [self.seconds()]
        while len(taken) < 3 or sum(taken) < WARM:
            taken.append(self.seconds())
        self.times = max(1, round(SHORTEST / min(taken)))
        return {"times": self.times}

    def repeat(self) -> dict[str, Any]:
        if self.times > 1:
            self.run()  # the caches were others' since the last repetition
        return {"seconds": self.seconds(self.times) / self.times}

    def first(self, case: dict[str, Any]) -> dict[str, Any]:
        self.ready(case)
        return {"seconds": self.seconds()}

    def memory(self, case: dict[str, Any]) -> dict[str, Any]:
        self.ready(case)
        self.seconds(3)
        unit = 1 if sys.platform == "darwin" else 1024
        return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def answer(child: Child, do: str, **arguments: Any) -> dict[str, Any]:
    try:
        return getattr(child, do)(**arguments)
    except Exception as error:  # whatever a framework cannot do is a row of the table
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}


def main() -> None:
    # What frameworks print goes to the error stream: standard output is for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child: Child | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            child = child or Child(sys.argv[1], json.loads(sys.argv[2]))
            reply = answer(child, **request)
        except ImportError as error:
            reply = {"error": f"cannot be imported: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
