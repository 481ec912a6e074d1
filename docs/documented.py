"""Ends the site's build unless every public name and method has a docstring, and every name stands on its page."""

import importlib
import inspect
import pathlib
import re
import types

from mkdocs.exceptions import PluginError

import tf_l2t


def on_post_build(config):
    """Raises PluginError for what is missing."""
    site = pathlib.Path(config["site_dir"])
    silent = [name for module in tf_l2t._MODULES for name in undocumented(importlib.import_module(f"tf_l2t.{module}"))]
    if silent:
        raise PluginError(f"without a docstring: {silent}.")
    missing = [f"tf_l2t.{module}.{name}" for module in tf_l2t._MODULES
               for name in public_names(importlib.import_module(f"tf_l2t.{module}")) - shown(site, module)]
    if missing:
        raise PluginError(f"the reference does not show {missing}: a function that is called as its module needs an "
                          "entry of its own (docs/api/students.md has some).")


def public_names(module):
    """What a module's __all__ says; without one, its functions and classes."""
    return set(getattr(module, "__all__", None) or (
        key for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__))


def shown(site, module):
    """The names on a module's page."""
    html = (site / "api" / f"{module}.html").read_text(encoding="utf-8")
    return {name.rsplit(".", 1)[1] for name in re.findall(r'id="(tf_l2t[\w.]+)"', html)
            if name.startswith(f"tf_l2t.{module}.")}


def undocumented(module):
    """The module itself, its public classes and functions and their methods, of those that have no docstring."""
    silent = [] if module.__doc__ else [module.__name__]
    for key in sorted(public_names(module)):
        made = getattr(module, key)
        if callable(made) and not inspect.getdoc(made):
            silent.append(f"{module.__name__}.{key}")
        if inspect.isclass(made):
            silent += silent_methods(made)
    return silent


def silent_methods(made):
    """Public methods and properties of the package's own, rather than Keras' or TensorFlow's."""
    own, others = ([base for base in made.__mro__ if base.__module__.startswith("tf_l2t") == mine]
                   for mine in (True, False))
    return [f"{base.__module__}.{base.__name__}.{key}" for base in own for key, value in vars(base).items()
            if not key.startswith("_") and isinstance(value, types.FunctionType | property | classmethod | staticmethod)
            and not inspect.getdoc(getattr(base, key)) and not any(key in vars(other) for other in others)]
