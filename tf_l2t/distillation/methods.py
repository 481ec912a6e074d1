"""Every way of distillation, by name: where a student's targets come from, and what its loss is.

The loss of a phase is ce · H(y, q_s) + kd · T² KL(p_t ‖ q_s) + Σ weight · term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from tf_l2t.distillation.terms import TERMS

# The mode of a network while the other one is trained, beside a teacher that is trained along.
TARGETS = ("training", "inference")
# Where targets come from.
TEACHERS = {
    "none": "no teacher",
    "fixed": "a teacher that stays as it is",
    "anchors": "a teacher's checkpoints, one after the other",
    "trained": "a teacher that is trained along, every step before the student",
}


class Phase(NamedTuple):
    """A part of the training.

    Attributes:
      name: what `DistillationTrainer.begin` takes.
      ce: weight of the labels' cross entropy.
      kd: of the divergence from the teacher's distribution.
      terms: (name in `tf_l2t.distillation.TERMS`, or a `keras.distillation.DistillationLoss`, weight).
      prepares: whether, in place of the student, the terms' own layers are trained on the teacher alone.
      frozen: whether a teacher that is trained along stays as it is in this phase, or has another one in its place.
    """

    name: str = "main"
    ce: float = 0.0
    kd: float = 0.0
    terms: tuple[tuple[Any, float], ...] = ()
    prepares: bool = False
    frozen: bool = False


class Method(NamedTuple):
    """A way of distillation.

    Attributes:
      name: in `METHODS`.
      teacher: a name in `TEACHERS`.
      phases: one after the other; all but the last are before the student's training proper.
      temperature: T.
      lam: λ of a trained teacher: the weight of the student's distribution in the teacher's targets.
      epsilon: of ProKT's constrained form, the divergence that is allowed; None for a fixed λ.
      lam_rate: of the constrained form, the rate of its multiplier, which begins with λ.
      targets: of a trained teacher, the mode, one of `TARGETS`, in which either network says what the other is to learn
        from; None for training mode of networks with batch normalisation, and inference mode of others.
      options: of the terms.
    """

    name: str
    teacher: str
    phases: tuple[Phase, ...]
    temperature: float = 4.0
    lam: float = 0.0
    epsilon: float | None = None
    lam_rate: float = 0.01
    targets: str | None = None
    options: Mapping[str, Any] = {}

    @property
    def last(self) -> Phase:
        """The phase that makes the student: the last one."""
        return self.phases[-1]

    @property
    def has_first_teacher(self) -> bool:
        """Whether it has a phase in which a teacher that is trained along is not trained yet."""
        return any(phase.frozen for phase in self.phases)

    def to_config(self) -> dict[str, Any]:
        """As JSON values."""
        phases = [{**phase._asdict(), "terms": [(_serialized(term), weight) for term, weight in phase.terms]}
                  for phase in self.phases]
        return {**self._asdict(), "phases": phases, "options": dict(self.options)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Method:
        """The method that `to_config` described."""
        phases = tuple(Phase(**{**phase, "terms": tuple((term if isinstance(term, str) else
                                keras.saving.deserialize_keras_object(term), weight) for term, weight in
                                phase["terms"])})
                       for phase in config["phases"])
        return cls(**{**config, "phases": phases})


def _serialized(term: Any) -> Any:
    return term if isinstance(term, str) else keras.saving.serialize_keras_object(term)


def _feature(name: str, weight: float, *before: Phase, kd: float = 0.0) -> Method:
    return Method(name, "fixed", (*before, Phase(ce=1.0, kd=kd, terms=((name.split("_")[0], weight),))))


def _prokt(name: str, *terms: tuple[str, float]) -> Method:
    return Method(name, "trained", (Phase(kd=1.0, terms=terms),), temperature=1.0, lam=0.3)


_INNER = (("attention_scores", 1.0), ("hidden_states", 1.0))

# Weights and temperature of RepDistiller's commands; patient distillation's are of the grid of its paper. AB's student
# learns from its term only before it sees labels.
METHODS: dict[str, Method] = {found.name: found for found in (
    Method("none", "none", (Phase(ce=1.0),)),
    Method("kd", "fixed", (Phase(ce=0.1, kd=0.9),)),
    Method("rco", "anchors", (Phase(ce=0.1, kd=0.9),)),
    Method("kl", "fixed", (Phase(kd=1.0),), temperature=1.0),
    Method("rco_kl", "anchors", (Phase(kd=1.0),), temperature=1.0),
    _feature("crd", 0.8),
    _feature("crd_kd", 0.8, kd=1.0),
    _feature("fitnet", 100.0),
    _feature("at", 1000.0),
    _feature("sp", 3000.0),
    _feature("cc", 0.02),
    _feature("vid", 1.0),
    _feature("rkd", 1.0),
    _feature("pkt", 30000.0),
    Method("ab", "fixed", (Phase("boundaries", terms=(("ab", 1.0),)), Phase(ce=1.0))),
    _feature("ft", 200.0, Phase("paraphraser", terms=(("ft", 1.0),), prepares=True)),
    _feature("nst", 50.0),
    _prokt("prokt"),
    _prokt("crd_prokt", ("crd", 0.8)),
    *(Method(name, "fixed", (Phase(ce=0.5, kd=0.5, terms=((term, 100.0),)),), temperature=10.0)
      for name, term in (("pkd", "patient"), ("pkd_last", "patient_last"))),
    Method("tinybert", "fixed", (Phase("inner", terms=_INNER), Phase(kd=1.0)), temperature=1.0),
    Method("tinybert_prokt", "trained", (Phase("inner", terms=_INNER, frozen=True), Phase(kd=1.0)), temperature=1.0,
           lam=0.3),
)}
"""Every method of distillation by name."""
FIELDS = ("ce", "kd", "temperature", "lam", "epsilon", "lam_rate", "weight")


def method(name: str, /, **options: Any) -> Method:
    """A method of `METHODS` with other constants.

        method("kd", ce=0.0, kd=1.0)
        method("at", weight=500.0, variant="paper")
        method("prokt", epsilon=0.2)                        # the constrained form

    Args:
      name: in `METHODS`.
      **options: `ce` and `kd` of the last phase, `weight` of its term; fields of `Method`; and options of the term.

    Raises:
      ValueError: for an unknown method, a number out of range, or an option that the method does not have.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}; received {name!r}.")
    found = METHODS[name]
    last = found.last
    fields: dict[str, Any] = {key: options.pop(key) for key in FIELDS if key in options}
    targets = {"targets": options.pop("targets")} if "targets" in options else {}
    for key, value in fields.items():
        if (key, value) != ("epsilon", None) and (isinstance(value, bool) or not isinstance(value, (int, float))
                                                  or not 0 <= value < math.inf):
            raise ValueError(f"{key} must be a number of at least 0; received {value!r}.")
    fields |= targets
    _check_fitting(found, fields, options)
    if "weight" in fields:
        last = last._replace(terms=((last.terms[0][0], fields.pop("weight")),))
    last = last._replace(**{key: fields.pop(key) for key in ("ce", "kd") if key in fields})
    phases = (*found.phases[:-1], last)
    if "temperature" in fields and not any(phase.kd for phase in phases):
        raise ValueError(f"temperature is the divergence's, of which {name!r} has none (kd = 0)." + (
            " That of its term is nce_temperature." if name.startswith("crd") else ""))
    made = found._replace(phases=phases, **fields, options=options)
    check_method(made)
    return made


def _check_fitting(found: Method, fields: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises ValueError for options that a method does not have, or out of their range."""
    trained = [key for key in ("lam", "epsilon", "lam_rate", "targets") if key in fields]
    if trained and found.teacher != "trained":
        raise ValueError(f"{trained} are of methods that train the teacher along; {found.name!r} has "
                         f"{TEACHERS[found.teacher]}.")
    if fields.get("epsilon") is None and not fields.get("lam", 0.0) <= 1:
        raise ValueError(f"lam must be in [0, 1]; received {fields['lam']!r}.")
    if fields.get("temperature", 1.0) == 0:
        raise ValueError("temperature must be above 0; received 0.")
    if ("weight" in fields or options) and not any(phase.terms for phase in found.phases):
        raise ValueError(f"the method {found.name!r} has no term of inner tensors, which would take "
                         f"{sorted((*(['weight'] if 'weight' in fields else []), *options))}.")
    if "weight" in fields and not found.last.terms:
        raise ValueError(f"the last phase of {found.name!r} has no term that a weight would be of.")


def check_method(found: Method) -> None:
    """Raises ValueError for a method that names what there is not, has phases that its teacher has no part in, or
    Keras' divergence of logits as its term."""
    names = [phase.name for phase in found.phases]
    if found.teacher not in TEACHERS or not names or len(set(names)) < len(names):
        raise ValueError(f"a method needs a teacher, one of {sorted(TEACHERS)}, and phases of a name each; received "
                         f"{found}.")
    if found.last.prepares or (found.teacher == "trained" and all(phase.frozen for phase in found.phases)):
        raise ValueError("the last phase trains the student, and a teacher that is trained along has a phase in which "
                         f"it is; received {found}.")
    terms = [term for phase in found.phases for term, _ in phase.terms]
    unknown = [term for term in terms
               if not isinstance(term, keras.distillation.DistillationLoss) and term not in TERMS]
    if unknown:
        raise ValueError(f"the terms of a student's loss are {sorted(TERMS)}; received {unknown}.")
    for phase in found.phases:
        _check_phase(found, phase)
    # By its name it is a function, which Keras gives the logits as they are: no softmax, no T².
    if any(isinstance(term, keras.distillation.LogitsDistillation) and
           keras.losses.kl_divergence in keras.tree.flatten(term.loss) for term in terms):
        raise ValueError("LogitsDistillation() takes logits for probabilities: choose the method 'kd', or give it "
                         "loss=keras.losses.KLDivergence().")
    if found.targets not in (None, *TARGETS):
        raise ValueError(f"targets must be one of {TARGETS}, or None; received {found.targets!r}.")


def _check_phase(found: Method, phase: Phase) -> None:
    """Raises ValueError for a phase without a loss, or of which the method's teacher cannot be a part."""
    where = f"the phase {phase.name!r} of {found.name!r}"
    weights = (phase.ce, phase.kd, *(weight for _, weight in phase.terms))
    if any(isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf
           for weight in weights) or not any(weights):
        raise ValueError(f"{where} has a loss of 0 or none: ce, kd and the terms' weights must be numbers of at least "
                         f"0, and one above; received {weights}.")
    if found.teacher == "none" and (phase.kd or phase.terms):
        raise ValueError(f"{where} has the labels' cross entropy alone, as there is no teacher; received kd={phase.kd} "
                         f"and terms={phase.terms}.")
    if phase.frozen and found.teacher != "trained":
        raise ValueError(f"{where} is frozen, which a teacher that is trained along can be; it has "
                         f"{TEACHERS[found.teacher]}.")
    unprepared = [term for term, _ in phase.terms if not (
        isinstance(term, str) and hasattr(TERMS[term].make, "reconstruction"))]
    if phase.prepares and (unprepared or phase.ce or phase.kd):
        raise ValueError(f"{where} prepares layers of terms on the teacher alone: it must be of terms that have such "
                         f"layers, {[name for name, kind in TERMS.items() if hasattr(kind.make, 'reconstruction')]}, "
                         f"and have ce = kd = 0; received {phase}.")
