"""Options of a task: for each push of it, and for the workers that run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from presque import names, quantities
from presque.client.call import parameters_of, seconds_of
from presque.client.json_values import encoded
from presque.client.options import Duration, Moment
from presque.errors import PresqueError, nearest
from presque.fields import check_together, read_texts
from presque.tasks.errors import WrongTask
from presque.verbs import VERBS


class PushOptions(TypedDict, total=False):
    """Options of each push, as in the protocol.

    `uniq` is a key; True makes one of the task and its arguments, a function makes one of the arguments.
    `group`, too, may be a function of the arguments.
    """

    queue: str
    delay: Duration | None
    delayed: Moment | None
    priority: int | None
    ttl: Duration | None
    attempts: int | None
    keep: Duration | None
    group: str | Callable[..., str] | None
    uniq: str | bool | Callable[..., str] | None
    uniq_until: Literal["fetch", "done"] | None
    idempotency_key: str | None
    traceparent: str | None
    tracestate: str | None


class Options(PushOptions, total=False):
    """Options of a task where it is declared: those of each push, and how workers run the jobs of its queue.

    `concurrency` is how many jobs of its queue one worker process does at once. `fork` gives each a process
    of its own. `timeout` is how long one may take, `max_memory` how much its process may use.
    """

    concurrency: int | None
    fork: bool | None
    timeout: Duration | None
    max_memory: int | str | None


_ELSEWHERE = {
    word: said
    for said, words in {
        "`attempts`, which counts the first one, too": "max_retries retries retry",
        "`timeout`": "time_limit soft_time_limit job_timeout",
        "`keep`": "result_ttl result_expires keep_result store_results",
        "`ttl`": "expires max_age",
        "`queue`": "queue_name routing_key _queue_name",
        "`delay`": "countdown _defer_by",
        "`delayed`": "eta _defer_until",
        "`idempotency_key` or `uniq`": "job_id task_id _job_id",
        "`name`": "actor_name",
        "`current_job()`, from anywhere in the job": "bind context",
        "`raise Retry(in_=…)`, or the policy of the queue": (
            "retry_backoff min_backoff max_backoff retry_delay default_retry_delay"
        ),
        "the policy of the queue": "rate_limit",
        "not needed: what raises is retried, but for `Dead`": "autoretry_for retry_when throws",
    }.items()
    for word in words.split()
}
"""Options of RQ, Celery, Dramatiq, huey and arq, and what to say here."""

OF_A_PUSH = tuple(PushOptions.__annotations__)
OF_A_WORKER = ("concurrency", "fork", "timeout", "max_memory")
_TEXTS = ("group", "uniq", "uniq_until", "idempotency_key", "traceparent", "tracestate")


def check(name: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise `WrongTask` with a sentence unless a server and a worker would take these options."""
    for one in options:
        if one not in known:
            hint = _ELSEWHERE.get(one)
            said = nearest(one, known) if hint is None else f"here it is {hint}"
            raise WrongTask(f"`{name}`: unknown option `{one}`, {said}")
    try:
        if "queue" in options:
            names.queue(_text("queue", options["queue"]))
        row = VERBS["push"]
        given = {
            one: _text(one, value) if one in _TEXTS and value is not None else _no_switch(value)
            for one, value in options.items()
            if one in OF_A_PUSH and one != "queue" and not _is_of_task(one, value)
        }
        if given.get("uniq_until") is not None:
            given.setdefault("uniq", "any")
        parameters, headers = parameters_of("push", given)
        check_together(row.parameters, read_texts(row.parameters, parameters))
        for header, value in headers.items():
            row.headers[header.lower()].read_text(value)
        if options.get("timeout") is not None:
            seconds_of("timeout", options["timeout"])
        if options.get("max_memory") is not None:
            quantities.size(options["max_memory"])
    except (PresqueError, ValueError, TypeError) as error:
        raise WrongTask(f"`{name}`: {error}") from None
    if not isinstance(options.get("fork"), bool | None):
        raise WrongTask(f"`{name}`: `fork` should be True or False, not {quantities.quoted(options['fork'])}")
    concurrency = options.get("concurrency")
    if concurrency is not None and (type(concurrency) is not int or not 1 <= concurrency <= 10_000):
        raise WrongTask(f"`{name}`: `concurrency` should be 1 to 10000, not {quantities.quoted(concurrency)}")


def check_declared(name: str, options: Mapping[str, Any]) -> None:
    """The same for what is said where a task is declared, so for all of its jobs."""
    check(name, options, (*OF_A_PUSH, *OF_A_WORKER))
    if options.get("idempotency_key") is not None:
        raise WrongTask(
            f"`{name}`: an `idempotency_key` is that of one job, and all others would be taken for it: "
            "give it to `.options(…)` with each push"
        )


def _is_of_task(option: str, value: Any) -> bool:
    """Whether an option says how to make what a push takes."""
    return (callable(value) and option in ("uniq", "group")) or (isinstance(value, bool) and option == "uniq")


def _text(option: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and option in ("uniq", "group"):
        return str(value)  # such as the number of an order
    if not isinstance(value, str):
        raise TypeError(f"`{option}` should be a text, not {quantities.quoted(value)}")
    return value


def _no_switch(value: Any) -> Any:
    """Here `True` is not 1, as it is to Python: no option but `uniq` and `fork` is a switch."""
    return str(value).lower() if isinstance(value, bool) else value


def of_push(
    name: str,
    options: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    body: Mapping[str, Any],
) -> dict[str, Any]:
    """The options of a push to a client, for a call with these arguments, whose body is that."""
    found = {one: value for one, value in options.items() if one != "queue" and value is not None}
    for one in ("uniq", "group"):
        value = found.get(one)
        if callable(value):
            found[one] = value(*args, **kwargs)
    if found.get("uniq") is True:
        import hashlib  # which takes as long to load as most of this package

        text = encoded([body["args"], body["kwargs"]])
        found["uniq"] = f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    elif found.get("uniq") is False:
        del found["uniq"]
        found.pop("uniq_until", None)
    return found
