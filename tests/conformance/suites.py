"""The suites that ship with the onnx package, as cases that know their family, and which are left out.

The nodes' cases are made in memory by `onnx.backend.test`; those of PyTorch lie in files; the nine networks of its
"real" suite are there as `light_*.onnx`, with weights that the graph itself makes (ConstantOfShape), and the outputs
for one image.
"""

import functools
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper
from onnx.backend.test.runner import Runner

from juanji.interop.onnx_file import domain_of, graphs
from juanji.interop.operators import OPERATORS

DATA = Path(onnx.backend.test.__file__).parent / "data"
# The networks of the suite "real", smallest first.
NETWORKS = [
    "squeezenet", "shufflenet", "inception_v1", "bvlc_alexnet", "zfnet512", "inception_v2", "densenet121", "resnet50",
    "vgg19",
]  # fmt: skip

# Cases of operators that juanji has, and why they are left out: everywhere, or of the engine.
EXCLUDED = {
    r"(?i)(float8|float4|int4|int2|e4m3|e5m2)": "juanji has no numbers of so few bits",
    r"^test_training_dropout(_default)?(_mask)?$": "which elements are dropped is the generator's own",
    r"^test_identity_(sequence|opt)$": "sequences and optionals are no tensors",
}
NOT_COMPILED = {
    r"^test_div_(u?int8|int16|u?int32)": "division of whole numbers happens in NumPy, while the graph is made",
    r"^test_pow_types_int": "powers of whole numbers happen in NumPy, while the graph is made",
    r"^test_quantizelinear_uint16$": "tensors have no uint16, so NumPy holds it",
    r"^test_scatter.*_(mul|max|min|multiply)": "only sums and replacing have a derivative; the others happen in NumPy",
}


@dataclass(frozen=True)
class Case:
    """A model, the sets of its inputs and outputs, and how exactly it is to be met."""

    name: str
    family: str
    load: functools.partial
    rtol: float = 1e-3
    atol: float = 1e-7

    def __str__(self):
        return self.name

    def check(self, backend):
        """Raise unless the backend gives the outputs, in shape, type and value."""
        model, sets = self.load()
        ready = backend.prepare(model)
        for inputs, outputs in sets:
            Runner.assert_similar_outputs(outputs, ready.run(inputs), self.rtol, self.atol)
        return ready


def reason(name, table):
    """Why a case is left out, or nothing."""
    return next((why for pattern, why in table.items() if re.search(pattern, name)), "")


def array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def known(model):
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    return all((domain_of(node.domain), node.op_type) in OPERATORS for node in nodes)


@functools.cache
def node_cases():
    """The cases of single operators, and of operators taken apart into smaller ones (`_expanded`); and how many are of
    operators that juanji has not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the overflows that cases are made of
        made = onnx.backend.test.loader.load_model_tests(kind="node")
    whole = {case.name: case.model.graph.node[0] for case in made}
    cases = []
    for case in made:
        if known(case.model):
            node = whole[re.sub("_expanded.*", "", case.name)] if "_expanded" in case.name else whole[case.name]
            entry = OPERATORS.get((domain_of(node.domain), node.op_type))
            family = entry.family if entry else "others, taken apart"
            cases.append(Case(case.name, family, functools.partial(in_memory, case), case.rtol, case.atol))
    return cases, len(made) - len(cases)


def in_memory(case):
    return case.model, [([array(x) for x in inputs], [array(y) for y in outputs]) for inputs, outputs in case.data_sets]


@functools.cache
def file_cases(kind):
    """The cases of a suite that lies in files: "pytorch-converted", "pytorch-operator", "simple"."""
    folders = sorted(path.parent for path in (DATA / kind).glob("*/model.onnx"))
    return [Case(folder.name, kind, functools.partial(from_files, folder)) for folder in folders]


def from_files(folder):
    sets = [
        [
            [tensor(part / f"{kind}_{i}.pb") for i in range(len(list(part.glob(f"{kind}_*.pb"))))]
            for kind in ("input", "output")
        ]
        for part in sorted(folder.glob("test_data_set_*"))
    ]
    return onnx.load(folder / "model.onnx"), sets


def tensor(path):
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def network_case(name):
    return Case(name, "networks", functools.partial(network, name))


def network(name):
    """The image is that of the suite's runner: 0 … 1 row by row."""
    model = onnx.load(DATA / "light" / f"light_{name}.onnx")
    return model, [([image(model)], [tensor(DATA / "light" / f"light_{name}_output_0.pb")])]


def with_random_weights(name):
    """A network whose weights, which its graph makes equal numbers, are random ones of a size that keeps values in
    range, under the same names."""
    model = onnx.load(DATA / "light" / f"light_{name}.onnx")
    shapes = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    rng = np.random.default_rng(0)
    variances = {node.input[4] for node in model.graph.node if node.op_type == "BatchNormalization"}
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        (made,) = node.output
        shape = shapes[node.input[0]].tolist()
        values = rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 4))
        values = np.abs(values) + 0.5 if made in variances else values
        model.graph.node.remove(node)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), made))
    return model


def image(model):
    weights = {value.name for value in model.graph.initializer}
    (value,) = (value for value in model.graph.input if value.name not in weights)
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
