"""The tasks of the shop."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.db import close_old_connections

from presque import App
from shop.models import Order

P = ParamSpec("P")
R = TypeVar("R")

app = App(settings.PRESQUE_URL, token=settings.PRESQUE_TOKEN, queue="orders", attempts=3)


def with_database(function: Callable[P, R]) -> Callable[P, R]:
    """A worker has no requests, after which Django closes connections that are broken or too old."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return call


@app.task
@with_database
def confirm(order: int) -> None:
    """Tell a customer that their order has arrived. Doing it twice does no harm."""
    Order.objects.filter(pk=order).update(confirmed=True)
