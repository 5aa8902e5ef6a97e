"""Finds the worker that MODULE:CLASS names."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from presque.errors import SetupError, nearest, shown
from presque.worker.worker import Worker, from_function


def load(target: str) -> type[Worker]:
    """The class, or a worker made of the function, that `module:name` says. Raises `SetupError`.

    The current directory is looked through first, as for a script that is run there.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise SetupError(f"`{shown(target)}` is not a worker: use MODULE:CLASS, such as app.jobs:Mailer")
    here = str(Path.cwd())  # and not "", which would follow a job that changes the directory
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _module(module_name)
    found = getattr(module, name, None)
    if found is None:
        known = [
            other
            for other, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, Worker) and value is not Worker
        ]
        raise SetupError(f"module `{module_name}` has no `{shown(name)}`, {nearest(name, known)}")
    if inspect.isclass(found) and issubclass(found, Worker):
        return found
    if callable(found) and not inspect.isclass(found):
        return from_function(found)
    raise SetupError(f"`{shown(target)}` is neither a class that derives from Worker nor a function")


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SetupError(
                f"there is no module `{shown(name)}`: run this where it can be imported"
            ) from None
        raise
