"""The two halves of the cross-encoder as OpenVINO graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from indexers.encoders.bert import BertOps
from indexers.encoders.term_weights_graph import hidden_after
from optimizers.crossencoder.model import CrossModel
from rag.models.runtime import import_openvino

if TYPE_CHECKING:
    from openvino import Model


def lower(encoder: Model, *, tap: int) -> Model:
    """Inputs `input_ids` and `attention_mask` [B, T]; output `tapped` [B, T, H]: what the encoder knows after its layer `tap`.

    Raises:
        ConfigError: the graph is none of ours or has fewer layers.
    """
    openvino = import_openvino()
    from openvino import opset13 as opset

    tapped = hidden_after(encoder, tap)
    tapped.get_tensor().add_names({"tapped"})
    return openvino.Model([opset.result(tapped)], encoder.get_parameters(), "lower layers")


def joint(model: CrossModel) -> Model:
    """Inputs `asked` [1, L, H], the states of one question; `read` [B, T, H], of passages; `there` [B, T], 1 where a token is, and
    `matched` [B, T], 1 where it stands in the question. Output `answers` [B, L + T], of the question's tokens too, which mean
    nothing."""
    openvino = import_openvino()
    width = len(model.answers)
    weights = {f"encoder.layer.{at}.{name}": tensor for at, layer in enumerate(model.layers) for name, tensor in layer.items()}
    # Only its length is read.
    weights["embeddings.LayerNorm.weight"] = model.layers[0]["output.LayerNorm.weight"]
    ops = BertOps(weights, epsilon=model.facts.epsilon, activation=model.facts.activation)
    opset = ops.opset

    def entering(name: str, *shape: int):  # type: ignore[no-untyped-def]  # a Node of a package without types
        node = opset.parameter(list(shape), np.float32, name=name)
        node.output(0).get_tensor().set_names({name})
        return node

    asked, read = entering("asked", 1, -1, width), entering("read", -1, -1, width)
    there, matched = entering("there", -1, -1), entering("matched", -1, -1)
    zero = opset.constant(np.int64(0))
    passages = opset.gather(opset.shape_of(read), ops.ints(0), zero)
    length = opset.gather(opset.shape_of(asked), ops.ints(1), zero)
    asked_here = opset.add(asked, opset.constant(model.sides[0][None, None, :]))
    spread = opset.broadcast(asked_here, opset.concat([passages, length, ops.ints(width)], 0), broadcast_spec="NUMPY")
    marks = opset.multiply(opset.unsqueeze(matched, ops.ints(2)), opset.constant(model.matches[None, None, :]))
    read_here = opset.add(opset.add(read, opset.constant(model.sides[1][None, None, :])), marks)
    hidden = opset.concat([spread, read_here], 1)
    whole = opset.broadcast(ops.number(1), opset.concat([passages, length], 0), broadcast_spec="NUMPY")
    attendable = opset.concat([whole, there], 1)
    bias = opset.multiply(opset.subtract(opset.unsqueeze(attendable, ops.ints(1, 2)), ops.number(1)), ops.number(3e4))
    for at in range(len(model.layers)):
        hidden = ops.layer(hidden, bias, prefix=f"encoder.layer.{at}", heads=model.facts.heads)
    # A sum of products, in full precision: as a matrix product of one column it would be rounded like the layers.
    weighed = opset.reduce_sum(opset.multiply(hidden, opset.constant(model.answers[None, None, :])), opset.constant(np.int64(2)))
    answers = opset.add(weighed, ops.number(model.answers_bias))
    answers.output(0).get_tensor().set_names({"answers"})
    return openvino.Model([opset.result(answers)], [asked, read, there, matched], model.name)
