"""The same job for presque as the call of a function."""

from counting import count

from presque import App

app = App(queue="tasks")


@app.task
def counted(to: str, n: int) -> None:
    """Does nothing but count."""
    count()
