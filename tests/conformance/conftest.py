"""A table at the end: how many cases of ONNX's suites passed, by family."""

from collections import Counter


def pytest_terminal_summary(terminalreporter):
    passed, all_of_them = Counter(), Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for key, value in getattr(report, "user_properties", []):
                if key == "onnx":
                    all_of_them[value] += 1
                    passed[value] += outcome == "passed"
    if all_of_them:
        terminalreporter.section("cases of ONNX's suites that passed")
        for name, count in sorted(all_of_them.items()):
            terminalreporter.write_line(f"{name:<44}{passed[name]:>5} of {count}")
