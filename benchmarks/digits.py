"""The main job, `juanji train digits`, as a whole process for seeds 0 to 4: test accuracies, times, medians.

A run with an empty code cache comes first and counts for itself; those after it find the machine code that it wrote.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(seed: int, out: Path, cache: Path) -> tuple[float, float]:
    """Test accuracy and seconds of one process."""
    command = [sys.executable, "-m", "juanji", "train", "digits", "--quiet", "--seed", str(seed), "--out", str(out)]
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env={**os.environ, "JUANJI_CACHE": str(cache)})
    taken = time.perf_counter() - start
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))["test_accuracy"], taken


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, cold = run(0, folder / "cold", folder / "cache")
        print(f"empty code cache  whole process {cold:.1f} s", flush=True)
        results = []
        for seed in range(5):
            accuracy, taken = run(seed, folder / str(seed), folder / "cache")
            results.append((accuracy, taken))
            print(f"seed {seed}  test accuracy {accuracy:.2%}  whole process {taken:.1f} s", flush=True)
    accuracies, times = zip(*results, strict=True)
    print(f"median  test accuracy {statistics.median(accuracies):.2%}  whole process {statistics.median(times):.1f} s")


if __name__ == "__main__":
    main()
