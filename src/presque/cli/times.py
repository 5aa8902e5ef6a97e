"""Durations and moments as options of commands."""

from __future__ import annotations

import click

from presque import quantities


class Duration(click.ParamType[float]):
    """A duration as an option: seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text, or fail as click wants it."""
        try:
            return quantities.seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[float]):
    """A moment as an option: epoch seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text, or fail as click wants it."""
        try:
            return quantities.moment(value) / 1000
        except ValueError as error:
            self.fail(str(error), param, ctx)
