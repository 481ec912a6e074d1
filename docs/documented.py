"""Ends the site's build unless every public name and method has a docstring and type hints, and every name is shown."""

import importlib
import inspect
import pathlib
import re
import types

from mkdocs.exceptions import PluginError

import tf_l2t

# Modules of which documents name parts, beside the packages.
NAMED = ("garbage", *(f"training.{name}" for name in (
    "forecast", "rows", "sequence_student", "step_losses", "tasks", "taught_translator", "translation_objectives",
    "translation_task", "translator_fit")))


def on_post_build(config):
    """Raises PluginError for what is missing."""
    modules = [importlib.import_module(f"tf_l2t.{name}") for name in (*tf_l2t._MODULES, *NAMED)]
    for what, found in (("a docstring", undocumented), ("type hints", without_hints)):
        wrong = [name for module in modules for name in found(module)]
        if wrong:
            raise PluginError(f"without {what}: {wrong}.")
    there = shown(pathlib.Path(config["site_dir"]))
    missing = sorted(f"{module.__name__}.{name}" for module in modules for name in public_names(module)
                     if not {f"{module.__name__}.{name}", own_name(module, name)} & there)
    if missing:
        raise PluginError(f"the reference does not show {missing}: a function that is called as its module needs an "
                          "entry of its own (docs/api/students.md has some).")


def public_names(module):
    """What a module's __all__ says; without one, its functions and classes."""
    return set(getattr(module, "__all__", None) or (
        key for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__))


def own_name(module, name):
    """What a name is called where it was made; a function of its module's name is shown under that one."""
    made = getattr(module, name)
    return f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', '')}"


def shown(site):
    """The names on the reference's pages."""
    return {name for page in (site / "api").glob("*.html")
            for name in re.findall(r'id="(tf_l2t[\w.]+)"', page.read_text(encoding="utf-8"))}


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
    """Public methods and properties without a docstring, of the package's own rather than Keras' or TensorFlow's."""
    return [f"{base.__module__}.{base.__name__}.{key}" for base, key, _ in methods(made)
            if not key.startswith("_") and not inspect.getdoc(getattr(base, key)) and not of_others(made, key)]


def methods(made):
    """Of all classes of the package that a class is made of."""
    return [(base, key, value) for base in made.__mro__ if base.__module__.startswith("tf_l2t")
            for key, value in vars(base).items()
            if isinstance(value, types.FunctionType | property | classmethod | staticmethod)]


def of_others(made, key):
    return any(key in vars(base) for base in made.__mro__ if not base.__module__.startswith("tf_l2t"))


def without_hints(module):
    """Public functions, and public methods and constructors of public classes, that do not say all of their types; but
    for Keras' own methods, of which its names and docstrings say them."""
    found = []
    for key in sorted(public_names(module)):
        made = getattr(module, key)
        if inspect.isclass(made):
            found += [f"{base.__module__}.{base.__name__}.{name}" for base, name, value in methods(made)
                      if (name == "__init__" or not name.startswith("_"))
                      and not is_typed(value, method=not isinstance(value, staticmethod))
                      and (name == "__init__" or not of_others(made, name))]
        elif inspect.isfunction(made) and not is_typed(made):
            found.append(f"{module.__name__}.{key}")
    return found


def is_typed(made, method=False):
    function = inspect.unwrap(getattr(made, "fget", None) or getattr(made, "__func__", made))
    if not function.__module__.startswith("tf_l2t"):
        return True  # of dataclasses, which make theirs
    first, *rest = list(inspect.signature(function).parameters.values()) or [None]
    given = rest if method or first is None else [first, *rest]
    return all(value.annotation is not value.empty for value in given) and (
        function.__name__ == "__init__" or "return" in function.__annotations__)
