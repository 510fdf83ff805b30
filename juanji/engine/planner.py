"""From a traced function to a plan: units become calls, calls get levels, what they read and write gets memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from juanji.engine import layout
from juanji.engine.calls import FLAG, Call, border_text, keys_read
from juanji.engine.contract import Choice, Contractor
from juanji.engine.fuse import VIEWS, Fuser, Unit
from juanji.engine.layout import Border, Layout
from juanji.engine.precision import rounded
from juanji.engine.simplify import Program
from juanji.graph import PRIMITIVES, Node
from juanji.kernels import convolution, elements, products, scans, windows  # noqa: F401 (they register lowerings)
from juanji.kernels.fused import Walk, Writer
from juanji.kernels.isa import ISA
from juanji.kernels.lowering import Lowering, Place
from juanji.tensor import Tensor

FACES = {"conv": 0, "conv_input_grad": 1, "conv_weight_grad": 0}  # which argument is operand A


@dataclass
class Draft:
    """A plan on paper: calls in order, the layouts of tensors, the sizes of buffers, and where constants and cells lie.

    layouts  of stored tensors, by identity
    sizes    bytes of the buffers that the plan provides, by key; those of tensors have their identity for a key
    homes    cells by the key of their tensor; `commits` those among them that calls write
    """

    choice: Choice
    program: Program
    places: dict[int, Place]
    layouts: dict[Any, Layout]
    calls: list[Call]
    sizes: dict[Any, int] = field(default_factory=dict)
    homes: dict[int, Any] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    commits: list[Any] = field(default_factory=list)


class Planner:
    def __init__(self, program: Program, isa: ISA, choice: Choice) -> None:
        self.program, self.isa = program, isa
        copy_cells(program)
        learns = choice.learns or any(node.name == "conv_weight_grad" for node in program.nodes)
        self.choice = replace(choice, learns=learns)
        self.borders = find_borders(program)
        self.fuser = Fuser(program, set(self.borders))
        self.units = self.fuser.fuse()
        self.homes = {id(x): cell for cell, x in program.cells.items()}
        self.calls: list[Call] = []
        self.sizes: dict[Any, int] = {}
        self.constants: dict[int, Tensor] = {}
        self.settled, self.copies = self.settle_writes()
        self.layouts = self.find_layouts()
        stored = {key: Place(self.key(key), each.strides, 0, each.rounded) for key, each in self.layouts.items()}
        self.places = layout.places(program.nodes, stored)

    # Layouts

    def stored_tensors(self) -> Iterable[Tensor]:
        yield from self.program.inputs
        yield from self.program.cells.values()
        for unit in self.units:
            yield from unit.outputs
            for x in unit.reads.values():
                if x.has_value:
                    self.constants[id(x)] = x
                    yield x

    def find_layouts(self) -> dict[int, Layout]:
        narrow = rounded(self.program, self.fuser, self.units) if self.choice.precision == "bfloat16" else set()
        return {
            id(x): Layout(x.shape, x.dtype, self.borders.get(id(x), ()), id(x) in narrow) for x in self.stored_tensors()
        }

    def key(self, tensor: int) -> Any:
        """The buffer of a stored tensor: its own, or that of the cell it becomes the value of."""
        return self.settled.get(tensor, tensor)

    # What is written to cells

    def settle_writes(self) -> tuple[dict[int, int], list[tuple[Tensor, Any]]]:
        """Which new values may be computed where the old one lies; and those that are copied there afterwards."""
        values = list(self.program.writes.items())
        outputs = {id(self.fuser.root(x)) for x in self.program.outputs}
        candidates = {id(x): cell for cell, x in values if cell in self.program.cells and id(x) not in outputs}
        once = {key for key, times in Counter(id(x) for _, x in values).items() if times == 1}
        read = {key for unit in self.units for key in unit.reads}
        settled: dict[int, int] = {}
        for unit in self.units:
            own = [id(x) for x in unit.outputs]
            walk = None if unit.node else unit.walk
            alone = walk and not walk.sums and all(key in candidates and key in once for key in own)
            if alone and not read.intersection(own) and self.updates_in_place(unit, candidates):
                settled.update((key, id(self.program.cells[candidates[key]])) for key in own)
        self.break_cycles(settled)
        return settled, [(x, cell) for cell, x in values if id(x) not in settled]

    def break_cycles(self, settled: dict[int, int]) -> None:
        """Take back updates in place that would have to wait for each other, because each reads what another writes."""
        left = [unit for unit in self.units if any(id(x) in settled for x in unit.outputs)]
        while left:
            writers = {settled[id(x)]: unit for unit in left for x in unit.outputs}
            free = [u for u in left if not any(writers.get(key, u) is not u for key in u.reads)]
            if not free:
                for unit in left:
                    for x in unit.outputs:
                        del settled[id(x)]
                return
            left = [unit for unit in left if unit not in free]

    def updates_in_place(self, unit: Unit, candidates: dict[int, Any]) -> bool:
        """Whether a walk reads the cells it writes only where it writes them."""
        own = [self.program.cells[candidates[id(x)]] for x in unit.outputs]
        return all(self.fuser.same_place(unit, x) for x in own if id(x) in unit.reads)

    # Calls

    def draft(self) -> Draft:
        """The whole plan on paper."""
        commits = [unit for unit in self.units if any(id(x) in self.settled for x in unit.outputs)]
        for unit in self.units:
            if unit not in commits:
                self.add(unit)
        self.add_commits(commits)
        for key, border in self.borders.items():
            if key in self.layouts and any(map(any, border)):
                self.add_border(key)
        given = {id(x) for x in self.program.inputs}
        for key, each in self.layouts.items():
            if key not in self.settled and key not in self.homes and key not in given:
                self.sizes[key] = each.nbytes
        return Draft(
            self.choice, self.program, self.places, self.layouts, self.calls, self.sizes, self.homes, self.constants,
            list(self.program.writes),
        )  # fmt: skip

    def add(self, unit: Unit) -> None:
        if unit.node is not None:
            self.add_node(unit)
            return
        writer = Writer(unit.walk, self.isa, self.places, self.program.producers)  # type: ignore[arg-type]
        self.add_walk(unit, writer, [id(x) for x in unit.outputs])

    def add_walk(self, unit: Unit, writer: Writer, writes: list[Any]) -> None:
        code = writer.code()
        made = [self.program.producers[id(x)] for x in unit.outputs]
        what = "try" if writer.tries else "+".join(dict.fromkeys(node.name for node in made))
        call = Call.of(code, self.read_keys(code.slots, writes), writes, what, made[0].path)
        call.commits = not writer.tries and any(id(x) in self.settled for x in unit.outputs)
        call.repeatable = not (writer.tries or call.commits or writer.walk.sums) and len(call.writes) == 1
        self.calls.append(call)

    def read_keys(self, slots: Any, writes: Any) -> set[Any]:
        """The buffers among a call's arguments that it reads: a cell may be read and written by the same call."""
        return keys_read(slots, ()) - (set(writes) - set(self.homes))

    def add_node(self, unit: Unit) -> None:
        node = unit.node
        if "contraction" in node.record.lower:  # type: ignore[union-attr]
            contractor = Contractor(self.isa, self.places, self.program.producers, self.choice)
            calls, sizes = contractor.calls(unit)
            self.calls += calls
            self.sizes.update(sizes)
            return
        lowering = Lowering(self.isa, self.places, self.program.producers)
        lowering.making = {id(x) for x in unit.outputs}
        code = node.record.lower["kernel"](lowering, node)  # type: ignore[union-attr]
        writes = [id(x) for x in unit.outputs]
        self.calls.append(Call.of(code, keys_read(code.slots, writes), writes, node.name, node.path))  # type: ignore[union-attr]

    def add_border(self, key: int) -> None:
        each = self.layouts[key]
        code = border_text(each, self.isa)
        call = Call(
            code.kernel, (self.key(key),), code.extent, code.grain, frozenset(), frozenset([self.key(key)]), "border"
        )
        self.calls.append(call)

    # The guard: cells are written only if everything that goes into them is finite

    def add_commits(self, commits: list[Unit]) -> None:
        """First everything that would be written is tried; it is written if all of it, and the outputs, are finite."""
        copies = [(x, cell) for x, cell in self.copies if self.program.cells.get(cell) is not x]
        sources = [self.fuser.root(x) for x in (*(x for x, _ in copies), *self.program.outputs)]
        watched = {
            id(x): x
            for x in sources
            if x.is_floating and id(x) in self.layouts and id(x) not in self.homes and id(x) not in self.constants
        }
        if not commits and not copies:
            return
        for x in watched.values():
            self.watch(x)
        for unit in commits:
            parts = (unit.walk, self.isa, self.places, self.program.producers, FLAG)
            if any(x.is_floating for x in unit.outputs):
                self.add_walk(unit, Writer(*parts, tries=True), [FLAG])  # type: ignore[arg-type]
            self.add_walk(unit, Writer(*parts), [self.key(id(x)) for x in unit.outputs])  # type: ignore[arg-type]
        for x, cell in copies:
            self.copy(x, cell)

    def watch(self, x: Tensor) -> None:
        """Zero the flag if x is not finite."""
        code = self.taking(x, self.places[id(x)], tries=True).code()
        self.calls.append(Call.of(code, keys_read(code.slots, [FLAG]), [FLAG], "finite", ""))

    def taking(self, x: Tensor, to: Place, tries: bool = False) -> Writer:
        """What copies x to a place if the flag is set, or only tries whether that would be finite."""
        result = Tensor.spec(x.shape, x.dtype)
        node = Node(PRIMITIVES["identity"], (x,), {}, (result,), "")
        places, producers = {**self.places, id(result): to}, {**self.program.producers, id(result): node}
        return Writer(Walk(x.shape, stores=[result]), self.isa, places, producers, FLAG, tries)

    def copy(self, x: Tensor, cell: Any) -> None:
        """Write a value that lies elsewhere to its cell."""
        target = self.program.cells.get(cell)
        if target is None:
            target = self.program.cells[cell] = cell.spec()
            self.homes[id(target)] = cell
            self.layouts[id(target)] = Layout(target.shape, target.dtype)
            self.places[id(target)] = Place(id(target), self.layouts[id(target)].strides)
        code = self.taking(x, self.places[id(target)]).code()
        writes = [id(target)]
        call = Call.of(code, keys_read(code.slots, writes), writes, "copy", cell.path)
        call.commits = True
        self.calls.append(call)


def copy_cells(program: Program) -> None:
    """Put copies where a cell's own value would not do.

    A convolution may need one that has a border, which neither cells nor arguments have; where a cell is to get
    another's old value, that may be gone; and what is returned must not be an argument itself.
    """
    cells, given = {id(x) for x in program.cells.values()}, {id(x) for x in program.inputs}
    for cell, x in program.writes.items():
        if id(origin(program, x)) in cells | given and x is not program.cells.get(cell):
            program.writes[cell] = copied(program, x, len(program.nodes))
    program.outputs = [
        copied(program, x, len(program.nodes)) if id(origin(program, x)) in given else x for x in program.outputs
    ]
    for node in list(program.nodes):
        place = FACES.get(node.name, -1)
        if place < 0 or id(node.inputs[place]) not in cells | given:
            continue
        x = node.inputs[place]
        if not any(map(any, convolution.border(node.name, node.attrs["spec"]))) and not layout.gap(
            x.shape, x.dtype.itemsize
        ):
            continue
        x = copied(program, x, 0)
        inputs = tuple(x if i == place else y for i, y in enumerate(node.inputs))
        changed = Node(node.record, inputs, node.attrs, node.outputs, node.path)
        program.nodes[program.nodes.index(node)] = changed
        program.producers.update((id(y), changed) for y in node.outputs)


def origin(program: Program, x: Tensor) -> Tensor:
    """The tensor that x is a view of."""
    while id(x) in program.producers and program.producers[id(x)].name in VIEWS:
        (x,) = program.producers[id(x)].inputs
    return x


def copied(program: Program, x: Tensor, position: int) -> Tensor:
    """A copy of x, made at a position among the nodes."""
    copy = Node(PRIMITIVES["identity"], (x,), {}, (Tensor.spec(x.shape, x.dtype),), "")
    program.nodes.insert(position, copy)
    program.producers[id(copy.outputs[0])] = copy
    return copy.outputs[0]


def find_borders(program: Program) -> dict[int, Border]:
    """The borders that convolutions want around what they read; cells, which have none, are copied first."""
    borders: dict[int, Border] = {}
    given = {id(x) for x in (*program.inputs, *program.cells.values())}
    for node in program.nodes:
        if node.name in FACES:
            place = 1 if node.name == "conv_input_grad" else 0
            layout.add_border(borders, node.inputs[place], convolution.border(node.name, node.attrs["spec"]))
        if node.name == "conv_weight_grad" and id(node.inputs[1]) not in given:
            layout.add_border(borders, node.inputs[1])
    return borders


def levelled(calls: list[Call]) -> None:
    """Give every call the earliest level at which all it reads is there, and nobody reads any more what it overwrites.

    Calls that need nothing, or only prepare an operand, are put right before whoever needs them, so that their results
    lie about no longer than necessary.
    """
    writers: dict[Any, list[Call]] = defaultdict(list)
    readers: dict[Any, list[Call]] = defaultdict(list)
    for call in calls:
        for key in call.writes:
            writers[key].append(call)
        for key in call.reads:
            readers[key].append(call)
    done: set[int] = set()

    # What a call that commits writes, the flag aside, it overwrites: all that read the old value come before.
    makers = {key: [call for call in found if not call.commits or key == FLAG] for key, found in writers.items()}
    before: dict[int, list[Call]] = {}
    for call in calls:
        before[id(call)] = [w for key in call.reads - call.writes for w in makers.get(key, ())]
        if call.commits:
            before[id(call)] += [r for key in call.writes - {FLAG} for r in readers[key] if r is not call]

    order: list[Call] = []
    for start in calls:
        visit(start, before, done, order)
    for call in order:
        call.level = max([other.level + 1 for other in before[id(call)]], default=0)
    for call in reversed(order):
        if call.prepares or not before[id(call)]:
            after = [r.level for key in call.writes if not call.commits or key == FLAG for r in readers[key]]
            if after:
                call.level = max(0, min(after) - 1)


def visit(start: Call, before: dict[int, list[Call]], done: set[int], order: list[Call]) -> None:
    """Put `start` into the order, behind everything that comes before it."""
    if id(start) in done:
        return
    stack = [(start, iter(before[id(start)]))]
    done.add(id(start))
    while stack:
        call, rest = stack[-1]
        following = next((other for other in rest if id(other) not in done), None)
        if following is None:
            order.append(call)
            stack.pop()
        else:
            done.add(id(following))
            stack.append((following, iter(before[id(following)])))
