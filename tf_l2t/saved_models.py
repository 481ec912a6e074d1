"""Saved models: a teacher's SavedModel, checked before TensorFlow runs any of it; Keras models with parts of this
package."""

from __future__ import annotations

import importlib
import pathlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

# What teachers compute with, and a few of the same kind for teachers of one's own. None reads or writes anything but
# variables, or calls out of the graph.
ARITHMETIC = frozenset([
    "Abs", "Add", "AddN", "AddV2", "ArgMax", "AssignVariableOp", "BatchMatMulV2", "BiasAdd", "BroadcastTo", "Cast",
    "ClipByValue", "ConcatV2", "Const", "Cumsum", "Einsum", "Elu", "Equal", "Erf", "Exp", "ExpandDims", "Expm1", "Fill",
    "GatherNd", "GatherV2", "Gelu", "Greater", "GreaterEqual", "Identity", "IdentityN", "L2Loss", "LeakyRelu", "Less",
    "LessEqual", "Log", "Log1p", "LogSoftmax", "LogicalAnd", "LogicalNot", "LogicalOr", "MatMul", "MatrixDiagPartV3",
    "MatrixDiagV3", "Max", "Maximum", "Mean", "Min", "Minimum", "Mul", "Neg", "NoOp", "NotEqual", "OneHot", "OnesLike",
    "Pack", "PadV2", "Placeholder", "Pow", "Prod", "Range", "ReadVariableOp", "RealDiv", "Relu", "Reshape", "Rsqrt",
    "Select", "SelectV2", "Selu", "Shape", "Sigmoid", "Sign", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Square",
    "SquaredDifference", "Squeeze", "StopGradient", "StridedSlice", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unpack",
    "VarHandleOp", "ZerosLike"])
CALLS = frozenset(["PartitionedCall", "StatefulPartitionedCall"])
KINDS = {"bare_concrete_function", "function", "user_object", "variable"}
OBJECTS = {"_generic_user_object", "signature_map"}
# Signatures: what each takes and gives, by name; TensorFlow adds the last to every model.
SIGNATURES = {"coefficients": ({"features"}, {"coefficients"}),
              "loss": ({"features", "labels", "logits"}, {"loss"}), "__saved_model_init_op": (set(), None)}
# Modules whose classes Keras finds once they are imported.
REGISTER = ("distillation", "losses", "students", "training", "training.actor_critic", "training.mixer_student",
            "training.sequence_student", "training.taught_translator", "translation.token_losses")


def check_saved_model(path: str | pathlib.Path, also_ops: Iterable[str] = ()) -> None:
    """Raises ValueError unless a SavedModel is made of what teachers are made of; nothing of it is run.

    `tf.saved_model.load` runs code of a SavedModel as it loads it, which can write files: initialisers of resources,
    functions that restore objects of their own, and of a SavedModel without objects, as TensorFlow 1 wrote them,
    whatever it names. So those, assets, signatures other than a teacher's and every op that is not listed here are
    refused. The functions that save and restore the variables, which have ops of files, are not looked at: loading does
    not need them, and `load_signatures` leaves them out.

    Args:
      path: the directory.
      also_ops: further ops, such as a teacher of one's own has.

    Raises:
      ValueError: naming the first thing that is foreign, or for a file that is no SavedModel.
    """
    _checked(pathlib.Path(path) / "saved_model.pb", also_ops)


def _checked(file: pathlib.Path, also_ops: Iterable[str]) -> saved_model_pb2.SavedModel:
    """The SavedModel without its savers, checked."""
    if not file.is_file():  # a pipe would be waited for
        raise ValueError(f"{str(file)!r} is no file; give the directory of a SavedModel.")
    try:
        model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        graph, = model.meta_graphs
    except (DecodeError, OSError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is no SavedModel of one graph: {error}.") from error
    if not graph.object_graph_def.nodes:
        raise ValueError(f"{str(file)!r} has no objects: it is of TensorFlow 1, as no teacher is.")
    for node in graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        if kind not in KINDS or (kind == "user_object" and node.user_object.identifier not in OBJECTS):
            raise ValueError(f"{str(file)!r} holds an object of the kind {kind!r} "
                             f"({node.user_object.identifier or 'no name'}), which no teacher has.")
        if node.saveable_objects or node.registered_name:
            raise ValueError(f"{str(file)!r} holds an object that is restored by code of its own.")
    main = {node.name: node for node in graph.graph_def.node}
    named = [*graph.collection_def["saved_model_main_op"].node_list.value,
             *graph.collection_def["legacy_init_op"].node_list.value,
             *(tensor.name.split(":")[0] for tensor in graph.signature_def["__saved_model_init_op"].outputs.values())]
    first = [main.get(name) for name in named]
    if any(node is None or node.op != "NoOp" or node.input for node in first) or graph.asset_file_def:
        raise ValueError(f"{str(file)!r} runs a part of its graph when it is loaded, or has assets; no teacher does.")
    _leave_out_savers(graph)
    _check_ops(graph, str(file), ARITHMETIC | CALLS | set(also_ops))
    for name, signature in graph.signature_def.items():
        takes, gives = SIGNATURES.get(name, ({"unknown"}, None))
        if set(signature.inputs) != takes or gives not in (None, set(signature.outputs)):
            raise ValueError(f"{str(file)!r} has a signature {name!r} of {sorted(signature.inputs)}, which no teacher "
                             "has.")
    return model


def _leave_out_savers(graph: Any) -> None:
    """Takes out of a graph what saves and restores its variables, as `saver_def` says, whatever it is."""
    named = {name.split(":")[0] for name in (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)}
    savers = [node for node in graph.graph_def.node if node.name in named]
    called = {node.attr["f"].func.name for node in savers}
    kept_nodes = [node for node in graph.graph_def.node if node.name not in named]
    kept = [function for function in graph.graph_def.library.function if function.signature.name not in called]
    del graph.graph_def.node[:], graph.graph_def.library.function[:]
    graph.graph_def.node.extend(kept_nodes)
    graph.graph_def.library.function.extend(kept)
    graph.ClearField("saver_def")


def _check_ops(graph: Any, file: str, allowed: Iterable[str]) -> None:
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    if len(functions) < len(graph.graph_def.library.function):
        raise ValueError(f"{file!r} has two functions of one name.")
    called = {*graph.object_graph_def.concrete_functions,
              *(name for node in graph.object_graph_def.nodes for name in node.function.concrete_functions),
              *(node.bare_concrete_function.concrete_function_name for node in graph.object_graph_def.nodes)}
    for name, nodes in {"": graph.graph_def.node, **functions}.items():
        foreign = sorted({node.op for node in nodes} - set(allowed))
        if foreign:
            raise ValueError(f"{file!r} has the ops {foreign} in {name or 'its graph'!r}, which no teacher has.")
        called |= {value.func.name for node in nodes for value in node.attr.values()}
        called |= {one.name for node in nodes for value in node.attr.values() for one in value.list.func}
    missing = sorted(called - {"", *functions})
    if missing:
        raise ValueError(f"{file!r} calls the functions {missing}, which it does not have, or which save or restore "
                         "its variables.")


def load_model(file: str | pathlib.Path, **kwargs: Any) -> keras.Model:
    """`keras.models.load_model` of a model with losses, layers or models of this package, such as a `TaughtStudent`, or
    a model of yours that was compiled with a teacher's loss.

    Keras finds classes that are registered, and these are as soon as their modules are imported, which `import tf_l2t`
    leaves for later; Keras' own function knows those whose modules were used.

    Args:
      file: written by `model.save`.
      **kwargs: of `keras.models.load_model`.

    Raises:
      ValueError: as Keras' function, or for a .keras file that is not what was written.
    """
    from tf_l2t.students.loading import check_archive

    if zipfile.is_zipfile(file):
        try:
            check_archive(file)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"the model in {str(file)!r} is damaged: {error}.") from error
    for name in REGISTER:
        importlib.import_module(f"tf_l2t.{name}")
    return keras.models.load_model(file, **kwargs)


def load_signatures(path: str | pathlib.Path, also_ops: Iterable[str] = ()) -> Any:
    """The signatures of a teacher's SavedModel, as `tf.saved_model.load(path).signatures`, after `check_saved_model`.

    For whoever wants the graph as it was exported, whatever has become of the class since; `load_teacher` is for all
    else, and needs no graph.

    Raises:
      ValueError: as `check_saved_model`; for a SavedModel that TensorFlow cannot load.
    """
    path = pathlib.Path(path)
    model = _checked(path / "saved_model.pb", also_ops)
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "variables"
            copy.mkdir()
            for file in (path / "variables").iterdir():
                if file.is_file():  # and no pipe, whose end would be waited for
                    shutil.copyfile(file, copy / file.name)
            copy.with_name("saved_model.pb").write_bytes(model.SerializeToString())
            return tf.saved_model.load(folder).signatures
    except Exception as error:  # of many kinds, in many places: the files are not what was written
        raise ValueError(f"{str(path)!r} cannot be loaded: {type(error).__name__}: {error}") from error
