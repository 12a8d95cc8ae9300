"""Grows a branch for term weights on an encoder's OpenVINO graph; what the graph gave before, it gives still.

The branch reads the hidden states after layer `tap` of the backbone and runs one BERT layer of its own over them. Outputs
added: `term_weights` [B, T] (ReLU of a linear map, 0 at padding), `expansion_ids` and `expansion_logits` [B, m] (the likeliest
tokens of the vocabulary, best first, whether or not the passage holds them).

The vocabulary is scored against the backbone's own word embeddings, moved by a product of low rank: what is shipped is small,
and what is computed is one row of logits for each passage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexers.encoders.int8 import Site, integer_weight, linear_groups, quantised
from indexers.encoders.term_weights import TermModel
from rag.errors import ConfigError
from rag.models.runtime import import_openvino

if TYPE_CHECKING:
    from openvino import Model, Node, Output

# Where the branch's layers take their input, in order of execution; the first is shared with the backbone's next layer.
SITES = ("term_weights.mixed", "term_weights.attended", "term_weights.inner")
_OUTPUTS = ("term_weights", "expansion_ids", "expansion_logits")
_UNLIKELY = -1e4


def hidden_after(model: Model, layer: int) -> Output:
    """The hidden states [B, T, H] that a graph of ours has after so many layers.

    Raises:
        ConfigError: the graph has fewer layers, or is not one that `indexers.encoders.bert` built.
    """
    attentions = [node for node in model.get_ordered_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    if layer == len(attentions) and attentions:
        return model.output("last_hidden_state").get_node().input_value(0)
    if not 0 <= layer < len(attentions):
        raise ConfigError(f"Term weights need the hidden states after layer {layer}; the encoder has {len(attentions)} layers.",
                          hint="Pull the model again, or train weights for this one.")
    node = attentions[layer].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    return node.input_value(0)


def words_of(model: Model) -> NDArray[np.float32]:
    """The word embeddings (V, H): the table that `input_ids` are looked up in."""
    for user in model.input("input_ids").get_target_inputs():
        node = user.get_node()
        if node.get_type_name() == "Gather" and node.input_value(0).get_node().get_type_name() == "Constant":
            table: NDArray[np.float32] = node.input_value(0).get_node().get_data()
            return table
    raise ConfigError(f"{model.get_friendly_name()} has no table of word embeddings.", hint="Name a BERT encoder of ours.")


def extend(model: Model, terms: TermModel, *, sites: Sequence[Site] | None = None, own: Sequence[Site] = ()) -> Model:
    """The same model, changed in place. `sites`: the backbone's 8-bit ranges, None for floats; `own`: those of the branch, one
    for each of SITES.

    Raises:
        ConfigError: the graph does not fit the weights, or the ranges fit neither.
    """
    tap, words = hidden_after(model, terms.facts.tap), words_of(model)
    if words.shape != (terms.size, len(terms.weight)):
        raise ConfigError(f"The term weights are for {terms.size} tokens of {len(terms.weight)} numbers; the encoder has "
                          f"{words.shape[0]} of {words.shape[1]}.", hint="Train weights for this encoder.")
    before = [group[0].get_friendly_name() for group in linear_groups(model)]
    results = _Branch(terms, mask=model.input("attention_mask").get_node()).results(tap, words, small=sites is not None)
    model.add_results(results)
    model.validate_nodes_and_infer_types()
    if sites is None:
        return model
    return quantised(model, _in_order(model, dict(zip(before, sites, strict=True)), own))


def branch_sites(model: Model, sites: Sequence[Site]) -> list[Site]:
    """Of the ranges fitted on an extended model, those of the branch alone."""
    by_source = {_source(group): site for group, site in zip(linear_groups(model), sites, strict=True)}
    return [by_source[name] for name in SITES]


def _in_order(model: Model, backbone: Mapping[str, Site], own: Sequence[Site]) -> list[Site]:
    """The ranges of the backbone where it was before, its own where the branch has a layer."""
    branch, ordered = dict(zip(SITES, own, strict=True)), []
    for group in linear_groups(model):
        known = [backbone[name] for node in group if (name := node.get_friendly_name()) in backbone]
        ordered.append(known[0] if known else branch[_source(group)])
    return ordered


def _source(group: Sequence[Node]) -> str:
    name: str = group[0].input_value(0).get_node().get_friendly_name()
    return name


class _Branch:
    """Pieces of the branch, over one set of weights."""

    def __init__(self, terms: TermModel, *, mask: Node) -> None:
        import_openvino()
        from openvino import opset13

        self.opset, self._terms = opset13, terms
        self._attendable = self.opset.convert(mask, "f32")

    def results(self, tap: Output, words: NDArray[np.float32], *, small: bool) -> list[Node]:
        """`small`: the vocabulary's table in 8-bit integers, of which the processor has to read a quarter as much."""
        opset = self.opset
        hidden = self._layer(tap)
        # A sum instead of a product with one column: there is no kernel to win, and 8 bits would cost precision here.
        raised = opset.add(opset.reduce_sum(opset.multiply(hidden, self._floats(self._terms.weight[None, None, :])), self._ints(2)),
                           self._floats(self._terms.bias))
        weights = opset.multiply(opset.relu(raised), self._attendable)
        top = self._likeliest(hidden, words, small=small)
        return [self._named(node, name) for node, name in zip((weights.output(0), top.output(1), top.output(0)), _OUTPUTS,
                                                              strict=True)]

    def _layer(self, tap: Output) -> Node:
        """As in `indexers.encoders.bert`; input and output [B, T, H]."""
        opset, heads, width = self.opset, self._terms.facts.heads, len(self._terms.weight)
        hidden_from_all = opset.subtract(opset.unsqueeze(self._attendable, self._ints(1, 2)), self._floats(1))
        split = [opset.transpose(opset.reshape(self._linear(tap, f"attention.self.{part}"), self._ints(0, 0, heads, width // heads),
                                               True), self._ints(0, 2, 1, 3)) for part in ("query", "key", "value")]
        mixed = opset.scaled_dot_product_attention(*split, opset.multiply(hidden_from_all, self._floats(3e4)))
        joined = opset.reshape(opset.transpose(mixed, self._ints(0, 2, 1, 3)), self._ints(0, 0, width), True)
        joined.set_friendly_name(SITES[0])
        attended = self._norm(opset.add(self._linear(joined, "attention.output.dense"), tap), "attention.output.LayerNorm")
        attended.set_friendly_name(SITES[1])
        inner = opset.gelu(self._linear(attended, "intermediate.dense"), self._terms.facts.activation)
        inner.set_friendly_name(SITES[2])
        return self._norm(opset.add(self._linear(inner, "output.dense"), attended), "output.LayerNorm")

    def _likeliest(self, hidden: Node, words: NDArray[np.float32], *, small: bool) -> Node:
        """Logits of the vocabulary from the mean hidden state, [B, V]; stop words far below all; the best of them."""
        opset, parts = self.opset, self._terms.expansion
        weight = opset.unsqueeze(self._attendable, self._ints(2))
        total = opset.reduce_sum(opset.multiply(hidden, weight), self._ints(1))
        mean = opset.divide(total, opset.maximum(opset.reduce_sum(weight, self._ints(1)), self._floats(1e-9)))
        turned = opset.add(self._product(mean, parts["dense.weight"], small=False), self._floats(parts["dense.bias"]))
        centred = opset.mvn(opset.gelu(turned, "erf"), self._ints(-1), True, 1e-12, "inside_sqrt")
        topic = opset.add(opset.multiply(centred, self._floats(parts["norm.weight"])), self._floats(parts["norm.bias"]))
        table = words + (parts["low.into"] @ parts["low.out"]).T
        bias = np.where(self._terms.addable, parts["bias"], np.float32(_UNLIKELY))
        logits = opset.add(self._product(topic, table, small=small), self._floats(bias[None, :]))
        count = min(self._terms.facts.expanded, self._terms.size)
        return opset.topk(logits, opset.constant(np.int64(count)), 1, "max", "value", "i32")

    def _linear(self, entering: Node | Output, name: str) -> Node:
        matrix, bias = self._terms.layer[f"{name}.weight"], self._terms.layer[f"{name}.bias"]
        return self.opset.add(self.opset.matmul(entering, self._floats(matrix), False, True), self._floats(bias))

    def _product(self, entering: Node, matrix: NDArray[np.float32], *, small: bool) -> Node:
        """With a matrix (outputs, inputs) that is no site of 8-bit activations: it comes out of a conversion."""
        opset = self.opset
        integers, scale = integer_weight(matrix)
        if small:
            return opset.matmul(entering, opset.multiply(opset.convert(opset.constant(integers), "f32"), self._floats(scale)),
                                False, True)
        return opset.matmul(entering, opset.multiply(self._floats(matrix), self._floats(1)), False, True)

    def _norm(self, hidden: Node, name: str) -> Node:
        centred = self.opset.mvn(hidden, self._ints(-1), True, self._terms.facts.epsilon, "inside_sqrt")
        scaled = self.opset.multiply(centred, self._floats(self._terms.layer[f"{name}.weight"]))
        return self.opset.add(scaled, self._floats(self._terms.layer[f"{name}.bias"]))

    def _ints(self, *values: int) -> Node:
        return self.opset.constant(np.array(values, np.int64))

    def _floats(self, values: NDArray[np.float32] | float) -> Node:
        return self.opset.constant(np.asarray(values, np.float32))

    def _named(self, output: Output, name: str) -> Node:
        output.get_tensor().set_names({name})
        return self.opset.result(output)
