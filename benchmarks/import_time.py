"""How long `import juanji` takes, and how much of that is NumPy: medians over fresh processes, interleaved."""

import statistics
import subprocess
import sys

RUNS = 15
CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    result = subprocess.run([sys.executable, "-c", CODE.format(module)], capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> None:
    times = {module: [] for module in ("numpy", "juanji")}
    for _ in range(RUNS):
        for module, taken in times.items():
            taken.append(seconds(module))
    for module, taken in times.items():
        print(f"import {module:<7} {statistics.median(taken) * 1e3:6.1f} ms  (fastest {min(taken) * 1e3:.1f})")


if __name__ == "__main__":
    main()
