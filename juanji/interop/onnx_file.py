"""Reading ONNX files. They come from outside, so nothing in them is believed: not a size, a name, nor a path."""

from __future__ import annotations

import math
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from juanji.errors import DataError, unknown_name
from juanji.graph import Array
from juanji.interop.operators import OPERATORS, Operator
from juanji.interop.operators.elements import ELEMENTS, TYPES
from juanji.interop.operators.node import STANDARD
from juanji.interop.operators.subgraph import Subgraph
from juanji.interop.packages import NEWEST, require_onnx
from juanji.interop.stored import widened
from juanji.nn.module import Module

LARGEST = 2**31  # bytes: protobuf writes no larger file
AXES = 64  # NumPy has no more
HALF = {10: "float16", 16: "bfloat16"}


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its name, ONNX's number for its element type, its sizes (None where open)."""

    name: str
    element: int
    sizes: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Source:
    """A graph as plain values: what goes in and comes out, its operators by name, its initialisers, its constants."""

    file: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: dict[str, Operator]
    initialisers: dict[str, Array]
    constants: dict[str, Array]


def damaged(what: str, file: str, **lines: str) -> DataError:
    return DataError(f"this ONNX file cannot be used: {what}", at=file, **lines)


def read_model(file: Any) -> Source:
    """A file, by its path, or an `onnx.ModelProto`, as a `Source`.

    Raises DataError, naming the file, for one that is missing, damaged or refers to what is not there, and
    UnknownNameError that lists every operator juanji has not, before anything is computed.
    """
    onnx = require_onnx()
    if isinstance(file, onnx.ModelProto):
        return source_of(file, f"model {file.graph.name!r}", None)
    path = Path(file)
    content = read_bytes(path)
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own classes differ between its versions
        raise damaged("it is not a model", str(path), received=str(error), fix="copy or export it again") from None
    return source_of(model, str(path), path.parent)


def read_bytes(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) >= LARGEST:
            raise damaged(
                "it is too large", str(path), received=f"{size} bytes", rule="less than 2 GiB; weights beside it"
            )
        return path.read_bytes()
    except OSError as error:
        raise damaged(
            "it cannot be read", str(path), received=error.strerror or str(error), fix="check the path"
        ) from None


def source_of(model: Any, file: str, folder: Path | None) -> Source:
    reader = Reader(file, folder)
    graph = model.graph
    if not all(isinstance(name, str) for name in texts(model)):
        raise damaged("a name in it is not text", file, fix="copy or export it again")
    if not graph.output:
        raise damaged("there is no graph with outputs in it", file, fix="copy or export it again")
    versions = opsets(model, file)
    check_supported([node for inner in graphs(graph) for node in inner.node], versions, file)
    if graph.sparse_initializer:
        raise damaged("sparse weights are not supported", file, received=graph.sparse_initializer[0].values.name)
    initialisers = {proto.name: reader.array(proto) for proto in graph.initializer}
    inputs = tuple(reader.port(value) for value in graph.input if value.name not in initialisers)
    operators, constants = reader.nodes(graph, versions)
    outputs = tuple(reader.port(value, 0) for value in graph.output)
    given = [port.name for port in inputs] + [proto.name for proto in graph.initializer] + [*constants]
    check_names(given, operators.values(), [port.name for port in outputs], file)
    separate(operators, initialisers)
    return Source(file, inputs, outputs, operators, initialisers, constants)


def separate(operators: dict[str, Operator], initialisers: dict[str, Array]) -> None:
    """Make an initialiser of each identity of one: PyTorch writes weights that begin equal once, by all their names."""
    for name, operator in list(operators.items()):
        if operator.op == "Identity" and operator.inputs[0] in initialisers:
            initialisers[operator.outputs[0]] = initialisers[operator.inputs[0]]
            del operators[name]


def graphs(graph: Any) -> Iterator[Any]:
    """The graph, and those in attributes of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == attribute.GRAPH:
                yield from graphs(attribute.g)


def texts(model: Any) -> Iterator[Any]:
    """Every name in a model. protobuf gives those that are not UTF-8 as bytes."""
    yield from (entry.domain for entry in model.opset_import)
    for graph in graphs(model.graph):
        yield from names_in(graph)


def names_in(graph: Any) -> Iterator[Any]:
    yield graph.name
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for tensor in graph.initializer:
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))


def opsets(model: Any, file: str) -> dict[str, int]:
    """The version of the operators of each domain."""
    versions = {domain_of(entry.domain): entry.version for entry in model.opset_import}
    standard = versions.setdefault(STANDARD, 1)
    if not 1 <= standard <= NEWEST:
        raise damaged(
            "its operators are of an unknown version", file, received=f"opset {standard}", rule=f"1 … {NEWEST}"
        )
    return versions


def domain_of(name: str) -> str:
    return STANDARD if name == "ai.onnx" else str(name)


def check_supported(nodes: Iterable[Any], versions: dict[str, int], file: str) -> None:
    """Raise UnknownNameError with all operators that are not in the table, and the names of their nodes."""
    missing: dict[str, list[str]] = {}
    for place, node in enumerate(nodes):
        domain = domain_of(node.domain)
        if (domain, node.op_type) not in OPERATORS or schema_of(node.op_type, versions.get(domain, 1), domain) is None:
            name = f"{domain}.{node.op_type}" if domain else node.op_type
            missing.setdefault(name, []).append(node.name or f"number {place}")
    if missing:
        error = unknown_name("operator of ONNX", next(iter(missing)), (name for _, name in OPERATORS))
        error.what = f"this ONNX file needs operators that juanji has not: {', '.join(missing)}"
        error.at, error.rule = file, "the operators listed in docs/onnx.md"
        error.received = "; ".join(
            f"{op}: {', '.join(names[:8])}" + " …" * (len(names) > 8) for op, names in missing.items()
        )
        error.fix = "export the model with other operators, or with an opset that has them as smaller ones"
        raise error


@cache
def schema_of(op: str, version: int, domain: str) -> Any:
    """What ONNX says of an operator: its inputs, outputs and attributes; None if it has none of that name."""
    onnx = require_onnx()
    try:
        return onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None


@cache
def attributes_of(op: str, version: int, domain: str) -> dict[str, tuple[int, bool, Any]]:
    """An operator's attributes by name: the type's number, whether it must be given, the default."""
    onnx = require_onnx()
    found = {}
    for name, attribute in schema_of(op, version, domain).attributes.items():
        default = attribute.default_value
        value = plain(onnx.helper.get_attribute_value(default)) if default.type else None
        found[name] = (int(attribute.type), bool(attribute.required), value)
    return found


def plain(value: Any) -> Any:
    """An attribute as Python's own values."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [plain(item) for item in value] if not isinstance(value, str | int | float) else value


# Attributes of modules, of graphs of operators among them.
RESERVED = {*dir(Module), "constants", "drops", "file", "floating", "inputs", "makes", "outputs", "place", "training"}
RESERVED |= {"input_names", "output_names", "static_inputs"}


def unique(named: Iterable[tuple[str, Operator]]) -> Iterator[tuple[str, Operator]]:
    """Names that can stand in a path, each once, and none that a module needs for itself."""
    used, counts = {*RESERVED}, Counter[str]()
    for name, operator in named:
        free = clean = name.strip("/").replace(".", "_") or operator.op
        while free in used:
            counts[clean] += 1
            free = f"{clean}_{counts[clean]}"
        used.add(free)
        yield free, operator


def check_names(
    given: list[str],
    operators: Iterable[Operator],
    outputs: Sequence[str],
    file: str,
) -> None:
    """Raise DataError unless every name is made once, and before it is used: which excludes cycles."""
    known = {*given, ""}
    if len(known) <= len(given):
        raise damaged("two values have one name", file, received=", ".join(given[:20]), rule="each name once")
    for operator in operators:
        for name in operator.inputs:
            if name not in known:
                raise damaged(
                    "a node uses what nothing before it makes", file,
                    received=f"{operator.op} with input {name!r}", rule="nodes in the order in which they are computed",
                )  # fmt: skip
        for name in filter(None, operator.outputs):
            if name in known:
                raise damaged("two values have one name", file, received=name, rule="each name once")
            known.add(name)
    for name in outputs:
        if name not in known or not name:
            raise damaged("an output is made by no node", file, received=name)


@dataclass(frozen=True)
class Reader:
    """Reads the parts of one file, and names it in errors."""

    file: str
    folder: Path | None

    def port(self, value: Any, *unknown: int) -> Port:
        """An input or output; `unknown` are other numbers that its element type may have."""
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type":
            raise damaged(
                "not everything is a tensor", self.file, received=f"{value.name!r}", rule="no sequences, no maps"
            )
        if tensor.elem_type not in (*ELEMENTS, *unknown):
            raise damaged(
                "an element type is not supported", self.file,
                received=f"{value.name!r} of data type {tensor.elem_type} of ONNX", rule=TYPES,
            )  # fmt: skip
        sizes = None
        if tensor.HasField("shape"):
            sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
        return Port(value.name, tensor.elem_type, sizes)

    def nodes(self, graph: Any, versions: dict[str, int]) -> tuple[dict[str, Operator], dict[str, Array]]:
        """The operators of a graph by name, and the arrays of those that are nothing but a constant."""
        operators = dict(unique(self.operator(node, versions) for node in graph.node))
        fixed = [name for name, op in operators.items() if op.op == "Constant" and isinstance(op["value"], np.ndarray)]
        made = [(op.outputs[0], op["value"]) for op in map(operators.pop, fixed)]
        if len(dict(made)) < len(made):
            raise damaged("two values have one name", self.file, received=str([name for name, _ in made]))
        return operators, dict(made)

    def branch(self, graph: Any, versions: dict[str, int]) -> Subgraph:
        """A graph in an attribute, which may use every name that is known outside."""
        operators, constants = self.nodes(graph, versions)
        given = {proto.name: self.array(proto) for proto in graph.initializer} | constants
        branch = Subgraph(operators, given, [value.name for value in graph.output])
        check_names([*branch.captured, *given], operators.values(), branch.makes, self.file)
        return branch

    def operator(self, node: Any, versions: dict[str, int]) -> tuple[str, Operator]:
        domain = domain_of(node.domain)
        version = versions.get(domain, 1)
        self.check_counts(node, schema_of(node.op_type, version, domain))
        known = attributes_of(node.op_type, version, domain)
        given = {attribute.name: self.attribute(node, attribute, known, versions) for attribute in node.attribute}
        for name, (_, required, _) in known.items():
            if required and name not in given:
                raise self.misused(node, f"attribute {name} is missing")
        attrs = {name: given.get(name, default) for name, (_, _, default) in known.items()}
        return node.name, Operator((domain, node.op_type), version, attrs, given, node.input, node.output)

    def misused(self, node: Any, what: str) -> DataError:
        return damaged(
            "a node is not as its operator is defined", self.file, received=f"{node.op_type} {node.name!r}: {what}"
        )

    def check_counts(self, node: Any, schema: Any) -> None:
        inputs, outputs = len(node.input), len(node.output)
        single = [i for i, port in enumerate(schema.inputs) if port.option == port.option.Single]
        if not schema.min_input <= inputs <= schema.max_input or any(not node.input[i] for i in single if i < inputs):
            raise self.misused(node, f"{inputs} inputs for {schema.min_input} … {schema.max_input}")
        if not schema.min_output <= outputs <= schema.max_output or not outputs:
            raise self.misused(node, f"{outputs} outputs for {schema.min_output} … {schema.max_output}")

    def attribute(
        self, node: Any, attribute: Any, known: dict[str, tuple[int, bool, Any]], versions: dict[str, int]
    ) -> Any:
        if attribute.name not in known or known[attribute.name][0] != attribute.type:
            raise self.misused(node, f"attribute {attribute.name!r} of type {attribute.type}")
        if attribute.type == attribute.TENSOR:
            return self.array(attribute.t)
        if attribute.type == attribute.GRAPH:
            return self.branch(attribute.g, versions)
        try:
            return plain(require_onnx().helper.get_attribute_value(attribute))
        except (TypeError, ValueError) as error:
            raise self.misused(node, f"attribute {attribute.name!r}: {error}") from None

    # Tensors

    def array(self, proto: Any) -> Array:
        """A tensor's numbers, once its size is known to be that of what is there."""
        if proto.data_type not in ELEMENTS:
            raise self.misfit(proto, f"data type {proto.data_type} of ONNX is not supported")
        if any(not 0 <= n < LARGEST for n in proto.dims) or len(proto.dims) > AXES:
            raise self.misfit(proto, f"a size that cannot be, or more than {AXES} axes")
        count = math.prod(proto.dims)
        dtype = np.dtype(ELEMENTS[proto.data_type]) if proto.data_type not in HALF else np.dtype("<u2")
        external = proto.data_location == proto.EXTERNAL
        if external or proto.HasField("raw_data"):
            if dtype.kind == "O":
                raise self.misfit(proto, "strings as raw numbers")
            content = self.external(proto, count * dtype.itemsize) if external else proto.raw_data
            if len(content) != count * dtype.itemsize:
                raise self.misfit(proto, f"{len(content)} bytes")
            return self.narrow(proto, np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype))
        return self.typed(proto, count, dtype)

    def typed(self, proto: Any, count: int, dtype: np.dtype[Any]) -> Array:
        """Numbers in the field of their own type, of which complex ones and others are left out."""
        fields = {"float32": "float_data", "float64": "double_data", "int64": "int64_data", "object": "string_data"}
        fields |= {"uint32": "uint64_data", "uint64": "uint64_data"}
        values = getattr(proto, fields.get(dtype.name, "int32_data"))
        if len(values) != count:
            raise self.misfit(proto, f"{len(values)} numbers")
        if dtype.kind == "O":
            values = [value.decode("utf-8", "replace") for value in values]
        return self.narrow(proto, np.array(values, dtype if dtype.kind == "O" else None).astype(dtype))

    def narrow(self, proto: Any, numbers: Array) -> Array:
        """In its shape; half precision, so far its bits, as float32."""
        if proto.data_type == 10:
            numbers = numbers.view(np.float16).astype(np.float32)
        elif proto.data_type == 16:
            numbers = widened(numbers)
        return numbers.reshape(tuple(proto.dims))

    def misfit(self, proto: Any, received: str) -> DataError:
        return damaged(
            "a tensor is not what it says", self.file,
            received=f"{proto.name!r} of shape {tuple(proto.dims)}: {received}", fix="copy or export it again",
        )  # fmt: skip

    def external(self, proto: Any, size: int) -> bytes:
        """The bytes of a tensor that lies in a file beside the model, or in a folder there."""
        about = {entry.key: entry.value for entry in proto.external_data}
        try:
            offset, length = int(about.get("offset", 0)), int(about.get("length", size))
            path = self.beside(about.get("location", ""))
            if offset < 0 or length != size or offset + length > path.stat().st_size:
                raise self.misfit(proto, f"{length} bytes from {offset} on in {path.name}")
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise self.misfit(proto, f"{error}") from None

    def beside(self, location: str) -> Path:
        """The path of external data. Raises DataError for one that leads elsewhere: by `..`, its root, a link."""
        parts = Path(location.replace("\\", "/")).parts
        path = (self.folder or Path()).joinpath(*parts)
        outside = self.folder is None or not parts or ".." in parts or Path(location).is_absolute() or ":" in location
        links = [] if outside else [path, *list(path.parents)[: len(parts) - 1]]
        if outside or any(link.is_symlink() for link in links) or not stat.S_ISREG(path.stat().st_mode):
            raise damaged(
                "its weights lie elsewhere", self.file,
                received=f"location {location!r}", rule="a file in the folder of the model, no link",
            )  # fmt: skip
        return path
