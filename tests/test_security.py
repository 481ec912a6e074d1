"""Files from strangers: nothing that they hold runs."""

import hashlib
import json
import os
import pathlib
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import tf_l2t
from tests import tiny
from tf_l2t import export
from tf_l2t.data import mnist
from tf_l2t.losses import TAUGHT_FORMS
from tf_l2t.saved_models import check_saved_model, load_signatures
from tf_l2t.students import load_network
from tf_l2t.teachers import TEACHERS
from tf_l2t.training.checkpoints import Checkpoints


class Evil:
    """A pickle of it writes a file when it is read."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (pathlib.Path(self._path), "code ran")


class Writing(tf.saved_model.experimental.TrackableResource):
    """A resource that writes a file when a SavedModel that has it is loaded."""

    def __init__(self, path):
        super().__init__()
        self._path = str(path)

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[])

    def _initialize(self):
        tf.io.write_file(self._path, "code ran")


def test_a_teacher_whose_graph_writes_a_file(tmp_path):
    """A SavedModel is a program, which begins to run as it is loaded; `load_teacher` reads its variables alone."""
    teacher, target = tiny.teacher(), tmp_path / "written"
    path = tf_l2t.export_teacher(teacher, tmp_path / "teacher")
    module = export._Exported(teacher)
    module.writing = Writing(target)
    assert module.writing.resource_handle is not None
    tf.saved_model.save(module, str(tmp_path / "evil"),
                        signatures={"coefficients": module.coefficients, "loss": module.loss})
    target.unlink(missing_ok=True)
    tf.saved_model.load(str(tmp_path / "evil"))
    assert target.read_text() == "code ran"
    target.unlink()

    (path / "saved_model.pb").write_bytes((tmp_path / "evil" / "saved_model.pb").read_bytes())
    with pytest.raises(ValueError, match="not the file that was exported"):
        tf_l2t.load_teacher(path)
    metadata = json.loads((path / "tf_l2t.json").read_text())
    metadata["files"]["saved_model.pb"] = hashlib.sha256((path / "saved_model.pb").read_bytes()).hexdigest()
    (path / "tf_l2t.json").write_text(json.dumps(metadata))
    status = np.linspace(0, 1, 6, dtype=np.float32)
    np.testing.assert_array_equal(tf_l2t.load_teacher(path)(status), teacher(status))
    assert not target.exists()


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("form", TAUGHT_FORMS)
def test_exported_teachers_pass_the_check(name, form, tmp_path):
    teacher = TEACHERS[name](3, 6, loss=form)
    found = load_signatures(tf_l2t.export_teacher(teacher, tmp_path / "teacher"))["coefficients"]
    status = np.linspace(0, 1, 6, dtype=np.float32)
    np.testing.assert_allclose(found(features=tf.constant(status))["coefficients"], teacher(status), rtol=1e-6)


def _evil_op(op):
    def make(module, tmp_path):
        @tf.function(input_signature=[tf.TensorSpec([6])])
        def function(features):
            with tf.control_dependencies([op(str(tmp_path / "written"))]):
                return tf.identity(features)

        module.function = function
        return {"coefficients": function}

    return make


def _resource(module, tmp_path):
    module.writing = Writing(tmp_path / "written")
    assert module.writing.resource_handle is not None
    return {"coefficients": module.coefficients}


def _asset(module, tmp_path):
    (tmp_path / "asset").write_text("x")
    module.asset = tf.saved_model.Asset(str(tmp_path / "asset"))
    return {"coefficients": module.coefficients}


@pytest.mark.parametrize(("make", "match"), [
    (_evil_op(lambda path: tf.io.write_file(path, "code ran")), r"\['WriteFile'\]"),
    (_evil_op(tf.io.read_file), r"\['ReadFile'\]"),
    (_evil_op(lambda path: tf.raw_ops.SaveV2(prefix=path, tensor_names=["a"], shape_and_slices=[""],
                                             tensors=[tf.ones(())])), r"\['SaveV2'\]"),
    (_evil_op(lambda path: tf.py_function(lambda: None, [], [])), r"\['EagerPyFunc'\]"),
    (_evil_op(lambda path: tf.print(path)), "'PrintV2'"),
    (_resource, "of the kind 'resource'"), (_asset, "of the kind 'asset'")])
def test_graphs_that_do_more_than_compute_are_refused(make, match, tmp_path):
    module = export._Exported(tiny.teacher())
    tf.saved_model.save(module, str(tmp_path / "evil"), signatures=make(module, tmp_path))
    (tmp_path / "written").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=match):
        load_signatures(tmp_path / "evil")
    assert not (tmp_path / "written").exists()


def _writer(target):
    """A function that writes a checkpoint when it runs."""
    @tf.function(input_signature=[])
    def writer():
        op = tf.raw_ops.SaveV2(prefix=str(target), tensor_names=["a"], shape_and_slices=[""], tensors=[tf.ones(())])
        with tf.control_dependencies([op]):
            return tf.identity(1.0)

    return writer


def _write_too(function, target):
    """Adds to a function's body ops that write a checkpoint."""
    for node in _writer(target).get_concrete_function().function_def.node_def:
        if node.op in ("Const", "SaveV2") and not any(name.startswith("^") for name in node.input):
            copied = function.node_def.add()
            copied.CopyFrom(node)
            copied.name = f"evil_{node.name}"
            copied.input[:] = [f"evil_{name}" for name in node.input]
            if node.op == "SaveV2":
                function.control_ret["evil"] = copied.name
    function.signature.control_output.append("evil")
    function.signature.is_stateful = True


def test_a_model_of_tensorflow_1_is_refused(tmp_path):
    """Without objects, TensorFlow runs what saver_def and the signature of initialisation name as it loads."""
    model, call = saved_model_pb2.SavedModel(saved_model_schema_version=1), _writer(tmp_path / "written")
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.append("serve")
    concrete = call.get_concrete_function()
    with tf.Graph().as_default() as traced:
        x = tf.compat.v1.placeholder(tf.float32, [6], name="x")
        name = tf.compat.v1.placeholder(tf.string, [], name="name")
        concrete()
    graph.graph_def.CopyFrom(traced.as_graph_def())
    (function,) = (f for f in graph.graph_def.library.function if "writer" in f.signature.name)
    function.control_ret["c"] = "SaveV2"
    function.signature.control_output.append("c")
    function.signature.is_stateful = True
    (node,) = (node for node in graph.graph_def.node if "PartitionedCall" in node.op)
    graph.saver_def.save_tensor_name = graph.saver_def.filename_tensor_name = name.name
    graph.saver_def.restore_op_name, graph.saver_def.version = node.name, 2
    for tensor in (graph.signature_def["coefficients"].inputs["features"],
                   graph.signature_def["coefficients"].outputs["coefficients"]):
        tensor.name, tensor.dtype = x.name, 1
        tensor.tensor_shape.dim.add().size = 6
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "saved_model.pb").write_bytes(model.SerializeToString())
    tf.saved_model.load(str(tmp_path / "evil"))
    assert [*tmp_path.glob("written*")]  # so it runs
    for file in tmp_path.glob("written*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no objects"):
        load_signatures(tmp_path / "evil")
    assert not [*tmp_path.glob("written*")]


def test_a_signature_that_is_called_a_saver(tmp_path):
    """Ops of files in the body of the signature itself, which saver_def names in the saver's place."""
    file = tf_l2t.export_teacher(tiny.teacher(), tmp_path / "evil") / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (graph,) = model.meta_graphs
    nodes, functions = graph.graph_def.node, graph.graph_def.library.function
    (saver,) = (node for node in nodes if node.name == graph.saver_def.save_tensor_name.split(":")[0])
    functions.remove(next(f for f in functions if f.signature.name == saver.attr["f"].func.name))
    nodes.remove(saver)  # which would be refused as no saver any more
    (output,) = graph.signature_def["coefficients"].outputs.values()
    graph.saver_def.save_tensor_name = output.name
    (call,) = (node for node in nodes if node.name == output.name.split(":")[0])
    (signature,) = (f for f in functions if f.signature.name == call.attr["f"].func.name)
    _write_too(signature, tmp_path / "written")
    file.write_bytes(model.SerializeToString())
    tf.saved_model.load(str(tmp_path / "evil")).signatures["coefficients"](features=tf.zeros(6))
    assert [*tmp_path.glob("written*")]  # so it runs
    for written in tmp_path.glob("written*"):
        written.unlink()
    with pytest.raises(ValueError, match=r"calls the functions .'__inference_signature_wrapper_coefficients"):
        load_signatures(tmp_path / "evil")
    assert not [*tmp_path.glob("written*")]


def _named(functions, name):
    return next(function for function in functions if function.signature.name == name)


def _called_as_an_op(graph, signature, target):
    """A function by the name of an op that is allowed; as it loads, TensorFlow gives it, and who calls it, another."""
    function = graph.graph_def.library.function.add()
    function.signature.name = "Relu"
    for arguments, name in ((function.signature.input_arg, "features"), (function.signature.output_arg, "activations")):
        argument = arguments.add()
        argument.name, argument.type = name, 1
    same = function.node_def.add()
    same.name, same.op = "same", "Identity"
    same.input.append("features")
    same.attr["T"].type = 1
    function.ret["activations"] = "same:output:0"
    _write_too(function, target)
    same.input.append("^evil_SaveV2")
    (output,) = signature.ret
    call = signature.node_def.add()
    call.name, call.op = "evil_call", "Relu"
    call.input.append(signature.ret[output])
    call.attr["T"].type = 1
    signature.ret[output] = "evil_call:activations:0"
    return "Relu"


def _in_its_place(graph, signature, target):
    """Another implementation of the same interface, which TensorFlow's optimizer puts in where it is preferred."""
    inner = next(node.attr["f"].func.name for node in signature.node_def if "PartitionedCall" in node.op)
    function = _named(graph.graph_def.library.function, inner)
    function.attr["api_implements"].s, function.attr["api_preferred_device"].s = b"coefficients", b"GPU"
    other = graph.graph_def.library.function.add()
    other.CopyFrom(function)
    other.signature.name = "evil_other"
    other.attr["api_preferred_device"].s = b"CPU"
    _write_too(other, target)
    return "evil_other"


@pytest.mark.parametrize("put_in", [_called_as_an_op, _in_its_place])
def test_a_saver_that_runs_in_another_s_place(put_in, tmp_path):
    """Ops of files in the function that saver_def names, which is called by ways that no call shows."""
    file, target = tf_l2t.export_teacher(tiny.teacher(), tmp_path / "evil") / "saved_model.pb", tmp_path / "written"
    expected = load_signatures(tmp_path / "evil")["coefficients"](features=tf.ones(6))["coefficients"]
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (graph,) = model.meta_graphs
    (output,) = graph.signature_def["coefficients"].outputs.values()
    (call,) = (node for node in graph.graph_def.node if node.name == output.name.split(":")[0])
    evil = put_in(graph, _named(graph.graph_def.library.function, call.attr["f"].func.name), target)
    (saver,) = (node for node in graph.graph_def.node if node.name == graph.saver_def.save_tensor_name.split(":")[0])
    saver.attr["f"].func.name = evil
    file.write_bytes(model.SerializeToString())
    tf.saved_model.load(str(tmp_path / "evil")).signatures["coefficients"](features=tf.ones(6))
    assert [*tmp_path.glob("written*")]  # so it runs
    for written in tmp_path.glob("written*"):
        written.unlink()
    try:
        found = load_signatures(tmp_path / "evil")["coefficients"](features=tf.ones(6))["coefficients"]
    except ValueError:
        pass
    else:
        np.testing.assert_array_equal(found, expected if put_in is _in_its_place else tf.nn.relu(expected))
    assert not [*tmp_path.glob("written*")]


@pytest.mark.parametrize("signatures", [{"other": "coefficients"}, {"coefficients": "loss"}])
def test_signatures_that_no_teacher_has(signatures, tmp_path):
    module = export._Exported(tiny.teacher())
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={
        name: getattr(module, function) for name, function in signatures.items()})
    with pytest.raises(ValueError, match=r"has a signature .* which no teacher has"):
        load_signatures(tmp_path / "model")


def test_what_is_no_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no proto")
    with pytest.raises(ValueError, match="is no SavedModel of one graph"):
        check_saved_model(tmp_path)
    with pytest.raises(ValueError, match="is no file; give the directory of a SavedModel"):
        check_saved_model(tmp_path / "nowhere")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "saved_model.pb")
    for read in (check_saved_model, load_signatures):
        with pytest.raises(ValueError, match="is no file"):
            read(tmp_path)


def test_a_network_with_code_in_it(tmp_path):
    target = tmp_path / "written"
    name = str(target)
    inputs = keras.Input((2,))
    code = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1])  # kept as Python's bytecode
    keras.Model(inputs, code(inputs)).save(tmp_path / "student.keras")
    target.unlink()  # Keras called it as the model was built
    with pytest.raises(ValueError, match=r"cannot be loaded.*arbitrary code execution"):
        load_network(tmp_path / "student.keras")
    assert not target.exists()
    keras.models.load_model(tmp_path / "student.keras", safe_mode=False)
    assert target.exists()  # so it would have run


def test_a_model_with_other_weights_than_were_written(tmp_path):
    """One bit of them, which Keras reads from Python 3.12 on as if nothing were."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.save(tmp_path / "model.keras")
    content, weights = (tmp_path / "model.keras").read_bytes(), model.get_weights()[0].tobytes()
    assert content.count(weights) == 1
    place = content.index(weights) + 5
    (tmp_path / "model.keras").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
    with pytest.raises(ValueError, match=r"model.weights.h5 in it is not what was written"):
        load_network(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"model.keras' is damaged: model.weights.h5 in it is not what was written"):
        tf_l2t.load_model(tmp_path / "model.keras")
    flags = content.index(b"PK\1\2") + 8  # of the first file, in the list of files: as if it were encrypted
    (tmp_path / "model.keras").write_bytes(content[:flags] + bytes([content[flags] ^ 1]) + content[flags + 1:])
    for load, said in ((load_network, "cannot be loaded"), (tf_l2t.load_model, "is damaged")):
        with pytest.raises(ValueError, match=f"{said}: .* is encrypted"):
            load(tmp_path / "model.keras")


def test_what_is_no_network(tmp_path):
    (tmp_path / "a.keras").write_bytes(b"PK\3\4 no zip")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_network(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_network(tmp_path / "none.keras")


def test_arrays_with_code_in_them(tmp_path):
    target = tmp_path / "written"
    evil = np.array([Evil(target)], dtype=object)
    np.savez(tmp_path / "mnist.npz", x_train=evil, y_train=evil, x_test=evil, y_test=evil)
    with pytest.raises(ValueError, match=r"mnist\.npz"):
        mnist(str(tmp_path / "mnist.npz"))
    assert not target.exists()
    pickle.loads(pickle.dumps(Evil(target)))  # as whoever unpickles it finds out
    assert target.exists()


def test_a_state_with_code_in_it(tmp_path):
    """States are tensors and JSON."""
    states = Checkpoints(tmp_path / "states", [tf.Variable(1.0)], {})
    states.save(1, {"step": 1})
    (tmp_path / "states" / "state-1.json").write_bytes(pickle.dumps(Evil(tmp_path / "written")))
    with pytest.warns(UserWarning, match="damaged"):
        assert states.restore() is None
    assert not (tmp_path / "written").exists() and os.listdir(tmp_path) == ["states"]
