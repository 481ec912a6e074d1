"""Compares an encoder in Hugging Face's format, as it is loaded here, with a forward pass in NumPy from the same files.

    python -m trainers.check_encoder --encoder DIR

Prints the largest difference of states, pooled output and attention scores on a few sentences, single and in pairs;
exit code 1 if one is above --tolerance, or no number.
"""

from __future__ import annotations

import sys

from absl import app, flags, logging

ENCODER = flags.DEFINE_string("encoder", None, "A directory with config.json, model.safetensors and vocab.txt.")
TOLERANCE = flags.DEFINE_float("tolerance", 1e-4, "The largest difference that is let pass.")


def main(argv: list[str]) -> None:
    if len(argv) > 1 or not ENCODER.value:
        sys.exit("error: name the encoder's directory, and nothing else: --encoder DIR")
    logging.set_verbosity(logging.WARNING)
    from tf_l2t.text import check_encoder  # with TensorFlow it takes seconds

    try:
        found = check_encoder(ENCODER.value)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for name, difference in found.items():
        print(f"{name}: largest difference {difference:.2e}")
    if not all(difference <= TOLERANCE.value for difference in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
