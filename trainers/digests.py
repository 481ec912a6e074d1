"""What a run's manifest says of the teachers and translators that the run begins with: digests of what they hold."""

from __future__ import annotations

import hashlib
import json

from tf_l2t.teachers import Teacher
from tf_l2t.translation import TextTranslator


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
