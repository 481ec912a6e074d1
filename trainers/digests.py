"""What a manifest says of the teachers and networks that a run begins with: digests of what they hold."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import keras

from tf_l2t.data import arrays_digest
from tf_l2t.teachers import Teacher

if TYPE_CHECKING:
    from tf_l2t.translation import TextTranslator  # its packages take a second to import


def teacher_digest(teacher: Teacher) -> str:
    """A SHA-256 of a teacher's weights, and of what kind it is."""
    found = hashlib.sha256(json.dumps(teacher.spec()).encode())
    for variable in teacher.theta:
        found.update(variable.numpy().tobytes())
    return found.hexdigest()


def translator_digest(translator: TextTranslator) -> str:
    """A SHA-256 of a translator's subwords and trained weights."""
    found = hashlib.sha256(translator.subwords.proto)
    for variable in translator.model.trainable_variables:
        found.update(variable.numpy().tobytes())
    return found.hexdigest()


def network_digest(network: keras.Model) -> str:
    """A SHA-256 of a network's weights, and not of its file, which has the date in it: a run that is finished once more
    writes another one."""
    return arrays_digest(variable.numpy() for variable in network.weights)
