"""Whether an encoder was loaded right: against a forward pass in NumPy from the same files."""

from __future__ import annotations

import os

import keras
import numpy as np

from tf_l2t.students import bert_classifier, taps
from tf_l2t.text import numpy_bert
from tf_l2t.text.pretrained import load_encoder
from tf_l2t.text.tasks import Examples

SENTENCES = ("The film is exhilarating to watch.", "There's a neat twist, subtly rendered, at 80 minutes.", "No.",
             "A naïve café owner's unbelievably long-winded monologue about semiotics.")


def check_encoder(path: str | os.PathLike[str]) -> dict[str, float]:
    """By output ("states", "pooled", "attention scores"), the largest difference between the classifier of the loaded
    encoder and NumPy's forward pass, on sentences and pairs of them.

    Raises:
      ValueError: as `load_encoder`.
    """
    backbone, wordpieces = load_encoder(path)
    model = bert_classifier(backbone, special=wordpieces.special)
    inner = taps(model)
    last = backbone.num_layers
    names = [f"hidden{last}", "pooled", *(f"attention{i}" for i in range(1, last + 1))]
    network = keras.Model(model.inputs, [inner[name] for name in names])
    worst = {"states": 0.0, "pooled": 0.0, "attention scores": 0.0}
    for second in (None, SENTENCES[::-1]):
        tokens = wordpieces.encode(Examples(SENTENCES, second, np.zeros(len(SENTENCES), np.int32)), 48)
        segments, mask = (np.asarray(part) for part in model.get_layer("segments")(tokens))
        expected = numpy_bert.forward(path, tokens, segments, mask)
        states, pooled, *scores = (np.asarray(value) for value in network([tokens]))
        real = mask[..., None]  # what stands on padding is read by nothing
        pairs = {"states": [(states * real, expected.states * real)], "pooled": [(pooled, expected.pooled)],
                 "attention scores": [(a * mask[:, None, :, None], b * mask[:, None, :, None])
                                      for a, b in zip(scores, expected.scores, strict=True)]}
        for name, found in pairs.items():
            # NumPy's, which keeps what is no number
            worst[name] = float(np.max([worst[name], *(np.abs(a - b).max() for a, b in found)]))
    return worst
