"""The main job, `juanji train digits`, as a whole process for seeds 0 to 4: test accuracies, times, medians."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(5):
            out = Path(folder) / str(seed)
            start = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "juanji",
                "train",
                "digits",
                "--quiet",
                "--seed",
                str(seed),
                "--out",
                str(out),
            ]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            taken = time.perf_counter() - start
            accuracy = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["test_accuracy"]
            results.append((accuracy, taken))
            print(f"seed {seed}  test accuracy {accuracy:.2%}  whole process {taken:.1f} s", flush=True)
    accuracies, times = zip(*results, strict=True)
    print(f"median  test accuracy {statistics.median(accuracies):.2%}  whole process {statistics.median(times):.1f} s")


if __name__ == "__main__":
    main()
