"""LSTM translation students with attention: LSTM-1 and LSTM-2 of the L2T-DLF paper (section 4.2, appendix B.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_l2t.students.translator import Translator, product, projected


class Memory(NamedTuple):
    """An encoded batch.

    Attributes:
      values: the encoder's outputs, [batch, S, units].
      keys: what attention compares with, [batch, S, units].
      bias: 0 at tokens and −1e9 at padding, [batch, S].
      hidden, cell: the last states of every layer, [batch, units] each, with which the decoder starts.
    """

    values: Any
    keys: Any
    bias: Any
    hidden: tuple[Any, ...]
    cell: tuple[Any, ...]


class DecoderState(NamedTuple):
    """hidden and cell of every layer, [batch, units] each, and the newest attentional vector, `fed` [batch, units]."""

    hidden: tuple[Any, ...]
    cell: tuple[Any, ...]
    fed: Any


class Products(NamedTuple):
    """What multiplies by the decoder's weights (`product`); teacher forcing makes it once for all steps.

    Attributes:
      fed: the first layer's, of what is fed to it.
      inputs: the other layers', of the layer below.
      recurrent: all layers', of their last hidden states.
      query, combine: W_q and W_c.
    """

    fed: Callable[[Any], Any]
    inputs: list[Callable[[Any], Any]]
    recurrent: list[Callable[[Any], Any]]
    query: Callable[[Any], Any]
    combine: Callable[[Any], Any]


@keras.saving.register_keras_serializable(package="tf_l2t")
class AttentionLSTM(Translator):
    """LSTM encoder and decoder with additive attention and input feeding.

    Encoder: a layer is two LSTMs of units / 2, one for each direction. Decoder layer 1 reads [e(y_{t−1}); h̃_{t−1}],
    and with the last layer's output h_t and encoder outputs m_j,

        a_j = softmax_j(v' tanh(W_q h_t + W_k m_j)),  h̃_t = tanh(W_c [Σ_j a_j m_j; h_t]),  logits = W_o h̃_t + b.

    The decoder starts from the encoder's last states, both directions put together, layer by layer. Kernels are Glorot
    uniform, recurrent ones orthogonal, embeddings uniform in ±0.05 (Keras's defaults), biases 0 but those of the forget
    gates, 1.

    The loops are `tf.while_loop`s, for any length: teachers are trained through them in reverse over reverse. With
    `unroll` they are written out, for one static length, and forward over reverse works as well.

    Args:
      vocabulary_size: V.
      units: of embeddings and of LSTM layers; even.
      num_layers: of encoder and decoder.
      dropout: of embeddings, between layers, and of h̃_t before the logits; between the decoder's layers one mask is
        drawn for all steps of a sentence.
      unroll: see above.

    Raises:
      ValueError: for odd units, or a number out of range.

    Source: additive attention of Bahdanau et al., ICLR 2015; input feeding of Luong et al., EMNLP 2015, section 3.3.
    """

    def __init__(self, vocabulary_size: int, units: int = 256, num_layers: int = 1, dropout: float = 0.0,
                 unroll: bool = False, **kwargs: Any):
        super().__init__(vocabulary_size, **kwargs)
        if units < 2 or units % 2:
            raise ValueError(f"units must be even, half for each direction of the encoder; received {units!r}.")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1; received {num_layers!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); received {dropout!r}.")
        self.units, self.num_layers, self.dropout, self.unroll = units, num_layers, dropout, unroll
        half = units // 2
        self.source_embedding = self._weight("source_embedding", [vocabulary_size, units], "uniform")
        self.target_embedding = self._weight("target_embedding", [vocabulary_size, units], "uniform")
        self.encoder = [{way: self._lstm(f"encoder_{i}_{way}", units, half) for way in ("forward", "backward")}
                        for i in range(num_layers)]
        self.decoder = [self._lstm(f"decoder_{i}", 2 * units if i == 0 else units, units) for i in range(num_layers)]
        self.query_kernel = self._weight("query_kernel", [units, units])
        self.key_kernel = self._weight("key_kernel", [units, units])
        self.score = self._weight("score", [units, 1])
        self.combine_kernel = self._weight("combine_kernel", [2 * units, units])
        self.logits_kernel = self._weight("logits_kernel", [units, vocabulary_size])
        self.logits_bias = self._weight("logits_bias", [vocabulary_size], "zeros")
        self.dropouts = [keras.layers.Dropout(dropout) for _ in range(2 * num_layers + 1)] if dropout else []
        self.built = True

    def _weight(self, name: str, shape: list[int], initializer: Any = "glorot_uniform") -> Any:
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def _lstm(self, name: str, inputs: int, units: int) -> dict[str, Any]:
        return {"kernel": self._weight(f"{name}_kernel", [inputs, 4 * units]),
                "recurrent": self._weight(f"{name}_recurrent", [units, 4 * units], "orthogonal"),
                "bias": self._weight(f"{name}_bias", [4 * units], _unit_forget)}

    def _drop(self, x: Any, number: int, training: bool) -> Any:
        return self.dropouts[number](x, training=training) if self.dropouts else x

    def encode(self, source: Any, training: bool = False) -> Memory:
        mask = tf.not_equal(source, 0)
        x = tf.gather(self.source_embedding.value, source)
        hidden, cell = [], []
        for i, layer in enumerate(self.encoder):
            x = self._drop(x, i, training)
            ways = [self._run(x, mask, layer["forward"], False), self._run(x, mask, layer["backward"], True)]
            x = tf.concat([outputs for outputs, _, _ in ways], axis=-1)
            hidden.append(tf.concat([h for _, h, _ in ways], axis=-1))
            cell.append(tf.concat([c for _, _, c in ways], axis=-1))
        bias = -1e9 * tf.cast(tf.logical_not(mask), x.dtype)
        return Memory(x, projected(x, self.key_kernel.value), bias, tuple(hidden), tuple(cell))

    def _run(self, x: Any, mask: Any, weights: dict[str, Any], backward: bool) -> tuple[Any, Any, Any]:
        """Outputs [batch, S, units / 2] and last states; at padding, states stay and outputs are 0."""
        recurrent = product(weights["recurrent"].value)
        inputs = tf.transpose(projected(x, weights["kernel"].value, weights["bias"].value), [1, 0, 2])
        masks = tf.transpose(mask)[..., tf.newaxis]
        zeros = tf.zeros([tf.shape(x)[0], weights["recurrent"].shape[0]], x.dtype)

        def step(state: Any, read: Any) -> Any:
            z, real = read
            (h, c), (last_h, last_c) = _cell(z + recurrent(state[0]), state[1]), state
            h, c = tf.where(real, h, last_h), tf.where(real, c, last_c)
            return (h, c), tf.where(real, h, tf.zeros_like(h))

        (h, c), outputs = self._loop(step, (zeros, zeros), (inputs, masks), backward)
        return tf.transpose(outputs, [1, 0, 2]), h, c

    def last_hidden(self, memory: Memory, previous: Any, training: bool = False) -> Any:
        embedded = self._drop(tf.gather(self.target_embedding.value, previous), self.num_layers, training)
        first = self.decoder[0]
        # What does not depend on the state is computed for all steps at once.
        inputs = projected(embedded, first["kernel"].value[:self.units], first["bias"].value)
        state, products = self.start(memory), self._products()
        # Not drawn in the loop, where the random state could not be handed on.
        masks = [self._drop(tf.ones_like(state.fed), self.num_layers + i, training)
                 for i in range(1, self.num_layers)] if self.dropouts and training else []

        def step(state: DecoderState, z: Any) -> tuple[DecoderState, Any]:
            state = self._advance(memory, state, z, products, masks)
            return state, state.fed

        _, fed = self._loop(step, state, tf.transpose(inputs, [1, 0, 2]))
        return self._drop(tf.transpose(fed, [1, 0, 2]), -1, training)

    def start(self, memory: Memory, max_length: int = 0) -> DecoderState:
        return DecoderState(memory.hidden, memory.cell, tf.zeros_like(memory.hidden[0]))

    def step(self, memory: Memory, state: DecoderState, tokens: Any, position: Any = 0) -> tuple[Any, DecoderState]:
        first = self.decoder[0]
        z = projected(tf.gather(self.target_embedding.value, tokens), first["kernel"].value[:self.units],
                      first["bias"].value)
        state = self._advance(memory, state, z, self._products())
        return self.logits(state.fed), state

    def _products(self) -> Products:
        first, *others = self.decoder
        return Products(product(first["kernel"].value[self.units:]),
                        [product(layer["kernel"].value) for layer in others],
                        [product(layer["recurrent"].value) for layer in self.decoder],
                        product(self.query_kernel.value), product(self.combine_kernel.value))

    def _advance(self, memory: Memory, state: DecoderState, z: Any, products: Products, masks: Sequence[Any] = ()
                 ) -> DecoderState:
        """One step of the decoder from the first layer's z, which the fed vector is still to be added to; `masks` of
        what the other layers read."""
        hidden: list[Any] = []
        cell: list[Any] = []
        for i, layer in enumerate(self.decoder):
            if i == 0:
                z += products.fed(state.fed)
            else:
                x = hidden[-1] * masks[i - 1] if masks else hidden[-1]
                z = products.inputs[i - 1](x) + layer["bias"].value
            h, c = _cell(z + products.recurrent[i](state.hidden[i]), state.cell[i])
            hidden.append(h)
            cell.append(c)
        query = products.query(hidden[-1])
        scores = projected(tf.tanh(memory.keys + query[:, tf.newaxis]), self.score.value)[..., 0] + memory.bias
        attention = tf.nn.softmax(scores)
        context = tf.reduce_sum(attention[..., tf.newaxis] * memory.values, axis=1)
        fed = tf.tanh(products.combine(tf.concat([context, hidden[-1]], -1)))
        return DecoderState(tuple(hidden), tuple(cell), fed)

    def logits(self, hidden: Any) -> Any:
        return projected(hidden, self.logits_kernel.value, self.logits_bias.value)

    def _loop(self, step: Any, state: Any, inputs: Any, backward: bool = False) -> tuple[Any, Any]:
        """(last state, outputs [T, …]) of `step`: (state, inputs_t) -> (state, output), over inputs [T, …], from their
        end if `backward`. Nothing is turned round or cut out of a larger tensor, which is slow, and more so its
        gradient."""
        first = tf.nest.flatten(inputs)[0]
        if self.unroll:
            if first.shape[0] is None:
                raise ValueError("unroll needs sentences of one static length; received an unknown one.")
            places = list(range(first.shape[0]))[::-1 if backward else 1]
            outputs = {}
            for t in places:
                state, outputs[t] = step(state, tf.nest.map_structure(lambda x, t=t: x[t], inputs))
            return state, tf.stack([outputs[t] for t in sorted(places)])
        length = tf.shape(first)[0]
        arrays = tf.nest.map_structure(
            lambda x: tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x), inputs)
        written = tf.TensorArray(tf.nest.flatten(state)[0].dtype, length, element_shape=None)

        def body(t: Any, state: Any, written: Any) -> Any:
            place = length - 1 - t if backward else t
            state, output = step(state, tf.nest.map_structure(lambda a: a.read(place), arrays))
            return t + 1, state, written.write(place, output)

        _, state, written = tf.while_loop(lambda t, *_: t < length, body, (0, state, written),
                                          maximum_iterations=length)
        return state, written.stack()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "units": self.units,
                "num_layers": self.num_layers, "dropout": self.dropout, "unroll": self.unroll}


def _cell(z: Any, cell: Any) -> tuple[Any, Any]:
    """(h, c) of an LSTM from its gates' inputs z [batch, 4 units]: input, forget, candidate, output."""
    i, f, g, o = tf.split(z, 4, axis=-1)
    cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(cell), cell


def _unit_forget(shape: Any, dtype: Any = None) -> Any:
    units = shape[0] // 4
    return tf.concat([tf.zeros([units], dtype), tf.ones([units], dtype), tf.zeros([2 * units], dtype)], 0)


def lstm1(vocabulary_size: int, **options: Any) -> AttentionLSTM:
    """LSTM-1 of the paper: one layer, 256 units."""
    return AttentionLSTM(vocabulary_size, num_layers=1, name="lstm1", **options)


def lstm2(vocabulary_size: int, **options: Any) -> AttentionLSTM:
    """LSTM-2 of the paper: two layers, 256 units."""
    return AttentionLSTM(vocabulary_size, num_layers=2, name="lstm2", **options)
