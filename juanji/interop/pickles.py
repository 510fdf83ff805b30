"""Pickles read as data: nothing that a file names is imported, and nothing of the program is called.

A pickle is a program for a small stack machine, and Python's own reader calls whatever that program names. Here the
machine knows only the instructions that plain data needs (dictionaries, lists, tuples, text, numbers) and a table of
names that its user gives; anything else is refused, by name, before it could do anything. Work and memory are bounded:
every instruction costs 1, a call in addition as much as it is given, and the whole at most `MOST_STEPS`.

The instructions are those of Python's module `pickletools`, which decodes them and runs nothing.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from juanji.errors import WeightsError

MOST_STEPS = 1_000_000  # the table of contents of a thousand tensors takes thirty thousand


@dataclass(frozen=True, eq=False)
class Function:
    """What a name in a pickle stands for if it is called: a function of this program that makes plain data."""

    call: Callable[..., Any]


def refused(what: str) -> WeightsError:
    return WeightsError(
        "the checkpoint holds something else than weights",
        received=what[:200],
        rule="tensors, dictionaries, lists, tuples, text and numbers; nothing that a file names is run",
        fix="in PyTorch, torch.save(model.state_dict(), file) writes the weights alone",
    )


class Machine:
    """The stack machine: `names` says what a pickle may name, `persistent` what a persistent id stands for."""

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise ValueError(f"its table of contents takes more than {MOST_STEPS:,} steps to read")

    def run(self, stream: BinaryIO) -> Any:
        """The value of the pickle that begins where `stream` stands, which is left behind its end.

        Raises WeightsError for what is refused, and ValueError, TypeError, LookupError and the like for what is no
        pickle at all.
        """
        for opcode, value, _ in pickletools.genops(stream):
            self.spend(1)
            if opcode.name not in STEPS:
                raise refused(f"the instruction {opcode.name} {value if isinstance(value, str) else ''}".strip())
            STEPS[opcode.name](self, value)
        (result,) = self.stack
        return result

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """What was pushed since the last mark, taken off."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def top(self, *kinds: type) -> Any:
        if type(self.stack[-1]) not in kinds:
            raise TypeError(f"{type(self.stack[-1]).__name__} cannot be filled")
        return self.stack[-1]

    def store(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def recall(self, place: int) -> None:
        self.push(self.memo[place])

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def update(self, items: list[Any]) -> None:
        self.top(dict).update(pairs(items))

    def name(self, text: str) -> None:
        """Push what a dotted name stands for."""
        if text not in self.names:
            raise refused(text)
        self.push(self.names[text])

    def name_of_parts(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(f"{module}.{name}" if isinstance(name, str) and isinstance(module, str) else "a name that is no text")

    def reduce(self, _: Any) -> None:
        """Call a function of the table."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise TypeError("a call of what is no function")
        self.spend(sum(len(x) for x in arguments if hasattr(x, "__len__")))
        self.push(function.call(*arguments))

    def build(self, _: Any) -> None:
        """Attributes, which only PyTorch's state dictionaries have; they hold version numbers of modules."""
        self.stack.pop()
        self.top(dict)


def pairs(items: list[Any]) -> dict[Any, Any]:
    """Keys and values by turns as a dictionary."""
    keys = items[::2]
    if len(items) % 2 or not all(map(is_key, keys)):
        raise TypeError("keys of a dictionary are text or numbers")
    return dict(zip(keys, items[1::2], strict=True))


def is_key(value: Any) -> bool:
    """Whether a value can be the key of a dictionary. The hashes of nested tuples and huge numbers take for ever."""
    return type(value) in (str, bytes, float, bool, type(None)) or (type(value) is int and value.bit_length() <= 64)


def ordered(entries: Any = ()) -> dict[Any, Any]:
    """An OrderedDict, as a dictionary: they keep their order, too."""
    return pairs([part for key, value in entries for part in (key, value)])


# What each instruction does, given the machine and the value that stands behind the instruction.
PUSHED = (
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES"),
)
STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    **dict.fromkeys(PUSHED, Machine.push),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, value: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.store),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.recall),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": Machine.mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.marked(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "LIST": lambda machine, _: machine.push(machine.marked()),
    "DICT": lambda machine, _: machine.push(pairs(machine.marked())),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": lambda machine, _: machine.update([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "GLOBAL": lambda machine, value: machine.name(value.replace(" ", ".", 1)),
    "STACK_GLOBAL": Machine.name_of_parts,
    "REDUCE": Machine.reduce,
    "BUILD": Machine.build,
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.stack.pop())),
}
