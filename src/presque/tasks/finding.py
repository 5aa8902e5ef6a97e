"""Finds what `presque worker TARGET…` names: tasks, worker classes, functions and recurring jobs."""

from __future__ import annotations

import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from presque.errors import SetupError, nearest, shown
from presque.tasks.app import App
from presque.tasks.recurring import Recurring
from presque.tasks.task import Task
from presque.tasks.worker import Found, found_in
from presque.worker.worker import Worker, from_function

CALL = "()"
USE = "use MODULE, such as myapp.tasks, or MODULE:CLASS, such as myapp.jobs:Mailer"
_NOT_FOR_WORKERS = ("__main__", "conftest", "tests")


def find(targets: Sequence[str]) -> Found:
    """What all of these name. Raises `SetupError`.

    The current directory is looked through first, as for a script that is run there.
    """
    here = str(Path.cwd())  # and not "", which would follow a job that changes the directory
    if here not in sys.path:
        sys.path.insert(0, here)
    tasks: dict[int, Task[Any, Any]] = {}
    recurring: dict[int, Recurring] = {}
    classes: dict[type[Worker], None] = {}
    modules: set[str] = set()
    for target in targets:
        for found in _named(target):
            tasks |= {id(one.definition): one for one in found.tasks}
            recurring |= {id(one): one for one in found.recurring}
            classes |= dict.fromkeys(found.classes)
            modules |= found.modules
    return Found(list(tasks.values()), list(recurring.values()), list(classes), frozenset(modules))


def _named(target: str) -> Iterator[Found]:
    module_name, colon, name = target.partition(":")
    if not module_name or (colon and not name):
        raise SetupError(f"`{shown(target)}` is not a worker: {USE}")
    module = _module(module_name)
    if colon:
        yield _single(module, name, target)
        return
    everything = [module, *_below(module)]
    found = _of_modules(everything, module_name)
    if not found.tasks and not found.classes:
        raise SetupError(
            f"module `{shown(module_name)}` has no task and no class that derives from Worker: decorate a"
            " function with `@app.task`, or name one as MODULE:FUNCTION"
        )
    yield found


def _single(module: ModuleType, name: str, target: str) -> Found:
    calls = name.endswith(CALL)
    name = name.removesuffix(CALL)
    found = getattr(module, name, None)
    if found is None:
        known = [one for one, value in vars(module).items() if _is_worker(value) or isinstance(value, App)]
        raise SetupError(f"module `{module.__name__}` has no `{shown(name)}`, {nearest(name, known)}")
    if calls:
        made = found() if callable(found) else found
        if not isinstance(made, App):
            raise SetupError(
                f"`{shown(target)}` made no App, but a `{type(made).__name__}`: let it return one"
            )
        found = made
    if isinstance(found, App):
        if not found.tasks:
            raise SetupError(
                f"the App `{shown(target)}` has no task in what is imported so far: name the module or the"
                f" package of its tasks, which is searched: `{module.__name__}`"
            )
        return found_in(found)
    if isinstance(found, Task):
        raise SetupError(
            f"`{shown(target)}` is a task, and others may share its queue: name its module,"
            f" `{module.__name__}`, or its App"
        )
    if inspect.isclass(found) and issubclass(found, Worker):
        return Found(classes=[found])
    if callable(found) and not inspect.isclass(found):
        if not _takes_a_job(found):
            raise SetupError(
                f"`{shown(target)}` takes no job: give the function a parameter for it, or, if it makes an"
                f" App, name it as `{shown(target)}()`"
            )
        return Found(classes=[from_function(found)])
    raise SetupError(
        f"`{shown(target)}` is neither a class that derives from Worker, nor a function, nor an App"
    )


def _takes_a_job(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # something built in, which does not say
        return True
    return True


def _of_modules(modules: Sequence[ModuleType], root: str) -> Found:
    """What these modules declare themselves: what they import from elsewhere is not theirs to run."""
    names = {module.__name__ for module in modules}
    values = [value for module in modules for value in vars(module).values()]
    apps = {id(one): one for value in values if (one := _app_of(value)) is not None}
    tasks = [task for app in apps.values() for task in app.tasks if task.definition.module in names]
    recurring = [one for app in apps.values() for one in app.recurring if one.module in names]
    classes = [one for one in values if _is_worker(one) and one.__module__ in names and callable(_work(one))]
    bases = {base for one in classes for base in one.__mro__[1:]}
    leaves = dict.fromkeys(one for one in classes if one not in bases)
    return Found(tasks, recurring, list(leaves), frozenset((root,)))


def _app_of(value: object) -> App | None:
    if isinstance(value, App):
        return value
    if isinstance(value, Task) and isinstance(value.app, App):
        return value.app
    return None


def _is_worker(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Worker) and value is not Worker


def _work(kind: type[Worker]) -> Callable[..., Any] | None:
    return getattr(kind, "work", None)


def _below(module: ModuleType) -> Iterator[ModuleType]:
    """Every module of a package, except its tests and what would run as a program."""
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if found.name in _NOT_FOR_WORKERS or found.name.startswith("test_"):
            continue
        inner = _module(f"{module.__name__}.{found.name}")
        yield inner
        yield from _below(inner)


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except SystemExit as error:  # as of a script that is not meant to be imported, and reads its arguments
        raise SetupError(
            f"`{shown(name)}` ends the program when it is imported ({error!r} in {_place_of(error)}): put"
            ' what a worker should not run below `if __name__ == "__main__":`'
        ) from None
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            hint = "run this where it can be imported"
            above, _, last = name.rpartition(".")
            if name == error.name and hasattr(sys.modules.get(above), last):
                hint = f"`{last}` is in the module `{above}`, so say `{above}`"
            if name.endswith(".py"):
                hint = f"say `{name.removesuffix('.py').replace('/', '.')}`, as in an import"
            raise SetupError(f"there is no module `{shown(name)}`: {hint}") from None
        raise


def _place_of(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"
