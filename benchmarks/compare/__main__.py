"""juanji against PyTorch, onnxruntime, OpenVINO and JAX.

Every framework runs in a process of its own on the same number of threads; the processes are asked in turn for one
repetition each, and medians are compared.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from benchmarks.compare import cases, measure, report
from benchmarks.compare.cases import Case, Configuration

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "JUANJI_ISA": "avx2"}
FEW, MANY = 5, 11  # repetitions
STEP = cases.STEP.name


class Bench:
    """The measurements that were asked for. Each method gives its sections of the report."""

    def __init__(self, quick: bool, wanted: str) -> None:
        self.quick, self.wanted = quick, [part.strip() for part in wanted.split(",")]
        self.threads, self.repetitions = usable(), FEW if quick else MANY

    def is_wanted(self, name: str, quick: bool = False) -> bool:
        """Whether to measure what is called so; `quick` says that it is quick."""
        return (quick or not self.quick) and any(part in name for part in self.wanted)

    def networks(self, title: str, configurations: list[Configuration], among: list[Case]) -> Iterator[str]:
        if chosen := [case for case in among if self.is_wanted(f"{title} {case.name}", case in cases.QUICK)]:
            times = measure.timed(configurations, self.threads, chosen, self.repetitions)
            rows = {case.name: row for case, row in zip(chosen, times, strict=True)}
            columns = [each.name for each in configurations]
            yield report.section(f"{title}, ms", columns, rows, ("best other / juanji", report.advantage))

    def layers(self, title: str, name: str, few: bool, **isa: str) -> Iterator[str]:
        if chosen := [case for case in cases.layer_cases(few) if self.is_wanted(f"{name} {case.name}", not isa)]:
            rows = measure.timed(cases.LAYER, self.threads, chosen, self.repetitions, **isa)
            yield report.layers(title, [each.name for each in cases.LAYER], chosen, rows)

    def one_step(self) -> Iterator[str]:
        """What is measured on one training step only."""
        frameworks = [cases.JUANJI, cases.TORCH, cases.COMPILED]
        if self.is_wanted("first step"):
            rows = {each.name: measure.first_steps(each, self.threads, cases.STEP) for each in frameworks}
            columns = ["cold cache", "warm cache", "next step", "warm beyond next"]
            yield report.section(f"First step, {STEP}, s", columns, rows, scale=1)
        if self.is_wanted("memory"):
            peaks = {
                each.name: [measure.alone(one, self.threads, "memory", cases.STEP) for one in (each, bfloat16)]
                for each, bfloat16 in zip(frameworks, cases.in_bfloat16(*frameworks), strict=True)
            }
            columns = ["float32", "bfloat16"]
            yield report.section(f"Peak memory of the process, {STEP}, MiB", columns, peaks, scale=2**-20)
        if self.is_wanted("threads"):
            times = measure.scaling(frameworks[:2], cases.STEP, self.repetitions)
            rows = {each.name: row for each, row in zip(frameworks, times, strict=False)}
            yield report.section(f"Threads, {STEP}, ms", ["one", "two"], rows, ("one / two", report.gain))

    def sections(self) -> Iterator[str]:
        yield from self.networks("Training steps", cases.TRAINING, cases.TRAINING_CASES)
        yield from self.networks("Inference", cases.INFERENCE, cases.INFERENCE_CASES)
        yield from self.networks("Training steps in bfloat16", cases.TRAINING_BFLOAT16, cases.BFLOAT16_TRAINING)
        yield from self.networks("Inference in bfloat16", cases.INFERENCE_BFLOAT16, cases.BFLOAT16_INFERENCE)
        yield from self.layers("Single layers", "layers", self.quick)
        yield from self.layers("Single layers with AVX2 only", "avx2", True, **AVX2)
        yield from self.one_step()


def usable() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small networks and a few layers")
    parser.add_argument("--cases", default="", metavar="A,B", help="only those whose names contain one of these")
    parser.add_argument("--write", action="store_true", help="put the results into docs/benchmarks.md")
    options = parser.parse_args()
    bench = Bench(options.quick, options.cases)
    parts = [report.machine(bench.threads)]
    print(parts[0], flush=True)
    for part in bench.sections():
        parts.append(part)
        print(part, flush=True)
    if len(parts) == 1:
        sys.exit(f"there is no such case: {options.cases}")
    if options.write:
        report.write("\n".join(parts))


if __name__ == "__main__":
    main()
