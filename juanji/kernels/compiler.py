"""A process that writes machine code for another one: LLVM text comes in, object code goes out, until nothing comes."""

from __future__ import annotations

import contextlib
import sys

from juanji.kernels.isa import ISAS
from juanji.kernels.machine import object_code, receive, send


def main() -> None:
    isa = ISAS[sys.argv[1]]
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            send(sys.stdout.buffer, object_code(receive(sys.stdin.buffer).decode(), isa))


if __name__ == "__main__":
    main()
