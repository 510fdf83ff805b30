"""How long `import juanji` takes, and how much of that is NumPy: medians over fresh processes, interleaved."""

import os
import statistics
import subprocess
import sys

RUNS = 15
CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


# As on a machine where it has been installed: with compiled bytecode at hand.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def seconds(module: str) -> float:
    command = [sys.executable, "-c", CODE.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout)


def main() -> None:
    times = {module: [] for module in ("numpy", "juanji")}
    seconds("juanji")
    for _ in range(RUNS):
        for module, taken in times.items():
            taken.append(seconds(module))
    for module, taken in times.items():
        print(f"import {module:<7} {statistics.median(taken) * 1e3:6.1f} ms  (fastest {min(taken) * 1e3:.1f})")


if __name__ == "__main__":
    main()
