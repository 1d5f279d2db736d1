"""A BERT encoder as an ONNX graph with int8 matrix products, written out by hand.

It is written from the weights, not exported from torch: that takes a tenth of a second, so that a start needs neither
torch nor a file kept from the last start, and every operator is one that onnxruntime is quick at.

Weights are int8, one scale a column. Activations are uint8: in the attention one scale a window, in the feed-forward one
a token, since a few tokens there reach ten times as far as the rest and would take all precision from them. Rows after
GELU are never below -.17, so they use the whole range of a byte. The attention's value product stays float32: it is a
twelfth of the work, and quantised it made half of the whole error. So does everything that is no product of matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from retrieval.encoder import Vectors

RECIPE = "int8-1"  # names all of the above: change it with any change of the graph that changes vectors

_GELU_MINIMUM = 0.17  # GELU's least value is -0.16997
_OPSETS = (("", 18), ("com.microsoft", 1))  # ONNX, and onnxruntime's own operators
_RUNTIME_OPERATORS = frozenset({"Gelu", "MatMulIntegerToFloat", "MultiHeadAttention"})


def bert_graph(weights: Mapping[str, Vectors], layers: int, heads: int, epsilon: float) -> bytes:
    """A model whose input `embedded` is the sum of one window's embeddings, shape (1, tokens, dimension), and whose output
    `hidden` are its token vectors, in the same shape. `weights` by their names in a bare BertModel.
    """
    graph = _Graph(weights, epsilon)
    hidden = graph.norm("embedded", "embeddings.LayerNorm")
    for number in range(layers):
        hidden = graph.layer(hidden, f"encoder.layer.{number}", heads)
    return graph.serialized(hidden)


class _Graph:
    """Nodes and constants so far. Every method adds nodes and returns the name of what they compute."""

    def __init__(self, weights: Mapping[str, Vectors], epsilon: float) -> None:
        self._weights = weights
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._last_axis = self._constant(np.array([-1], np.int64))
        self._epsilon = self._constant(np.float32(epsilon))

    def serialized(self, output: str) -> bytes:
        dimension = len(self._weights["embeddings.LayerNorm.bias"])
        self._nodes.append(helper.make_node("Identity", [output], ["hidden"]))
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "tokens", dimension])
            for name in ("embedded", "hidden")
        ]
        return _serialized(helper.make_graph(self._nodes, "bert", ends[:1], ends[1:], self._constants))

    def layer(self, hidden: str, name: str, heads: int) -> str:
        window = self._window_quantized(hidden)
        query, key = (self._product(window, f"{name}.attention.self.{part}") for part in ("query", "key"))
        value = self._exact_product(hidden, f"{name}.attention.self.value")
        read = self._node("MultiHeadAttention", [query, key, value], num_heads=heads)
        read = self._product(self._window_quantized(read), f"{name}.attention.output.dense")
        hidden = self.norm(self._node("Add", [read, hidden]), f"{name}.attention.output.LayerNorm")
        wide = self._node("Gelu", [self._product_by_token(hidden, f"{name}.intermediate.dense")])
        narrow = self._product_by_token(wide, f"{name}.output.dense", above=-_GELU_MINIMUM)
        return self.norm(self._node("Add", [narrow, hidden]), f"{name}.output.LayerNorm")

    def norm(self, rows: str, name: str) -> str:
        """LayerNorm in small steps: onnxruntime's own operator is not vectorised and takes three times as long. The sum of
        squares is one step, which also keeps the optimiser from finding the operator in them again."""
        scale, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        centred = self._node("Sub", [rows, self._node("ReduceMean", [rows, self._last_axis])])
        squares = self._node("ReduceSumSquare", [centred, self._last_axis])
        variance = self._node("Div", [squares, self._constant(np.float32(len(scale)))])
        deviation = self._node("Sqrt", [self._node("Add", [variance, self._epsilon])])
        scaled = self._node("Mul", [self._node("Div", [centred, deviation]), self._constant(scale)])
        return self._node("Add", [scaled, self._constant(bias)])

    def _window_quantized(self, rows: str) -> tuple[str, str, str]:
        """(bytes, scale, zero point) of all rows together."""
        names = (f"{rows}.bytes", f"{rows}.scale", f"{rows}.zero")
        self._nodes.append(helper.make_node("DynamicQuantizeLinear", [rows], names))
        return names

    def _product(self, quantized: tuple[str, str, str], name: str) -> str:
        columns, scales = _quantized_columns(self._weights[f"{name}.weight"].T)
        return self._multiplied(quantized, columns, scales, self._weights[f"{name}.bias"])

    def _exact_product(self, rows: str, name: str) -> str:
        """In float32."""
        weight, bias = (self._constant(self._weights[f"{name}.{part}"].T) for part in ("weight", "bias"))
        return self._node("Add", [self._node("MatMul", [rows, weight]), bias])

    def _product_by_token(self, rows: str, name: str, above: float | None = None) -> str:
        """The product with every row quantised on its own; `above` is a bound that no value lies below.

        Without it rows are spread over both sides of zero. With it, its distance to zero is added to every value and
        what that adds to the product is taken from the bias.
        """
        columns, scales = _quantized_columns(self._weights[f"{name}.weight"].T)
        bias = self._weights[f"{name}.bias"]
        if above is None:
            reach = self._node("ReduceMax", [self._node("Abs", [rows]), self._last_axis])
            reach = self._node("Max", [reach, self._constant(np.float32(1e-9))])
            scale, zero = np.float32(1 / 127), np.uint8(128)
        else:
            rows = self._node("Add", [rows, self._constant(np.float32(-above))])
            reach = self._node("ReduceMax", [rows, self._last_axis])
            scale, zero = np.float32(1 / 255), np.uint8(0)
            bias = bias + np.float32(above) * (columns * scales).sum(axis=0)
        constants = self._constant(scale), self._constant(zero)
        spread = self._node("QuantizeLinear", [self._node("Div", [rows, reach]), *constants])
        product = self._multiplied((spread, *constants), columns, scales)
        return self._node("Add", [self._node("Mul", [product, reach]), self._constant(bias)])

    def _multiplied(
        self, quantized: tuple[str, str, str], columns: NDArray[np.int8], scales: Vectors, bias: Vectors | None = None
    ) -> str:
        rows, scale, zero = quantized
        inputs = [rows, self._constant(columns), scale, self._constant(scales), zero]
        if bias is not None:
            inputs += ["", self._constant(bias)]
        return self._node("MatMulIntegerToFloat", inputs)

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{len(self._nodes)}.{operator}"
        domain = "com.microsoft" if operator in _RUNTIME_OPERATORS else ""
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def _constant(self, value: NDArray[np.generic] | np.generic) -> str:
        name = f"constant.{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name


def saturation_probe() -> bytes:
    """A model whose output `sums` are all 64 * 255 * 127 of an input `bytes` of 255, shape (8, 64), if sums are exact."""
    weight = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "weight")
    node = helper.make_node("MatMulInteger", ["bytes", "weight"], ["sums"])
    given = helper.make_tensor_value_info("bytes", TensorProto.UINT8, [8, 64])
    found = helper.make_tensor_value_info("sums", TensorProto.INT32, [8, 16])
    return _serialized(helper.make_graph([node], "probe", [given], [found], [weight]))


def _serialized(graph: GraphProto) -> bytes:
    opsets = [helper.make_opsetid(*opset) for opset in _OPSETS]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def _quantized_columns(weight: Vectors) -> tuple[NDArray[np.int8], Vectors]:
    """`weight`, shape (in, out), as whole numbers from -127 to 127 and one scale a column."""
    scales = np.maximum(np.abs(weight).max(axis=0), np.float32(1e-12)) / np.float32(127)
    return np.rint(weight / scales).astype(np.int8), scales
