"""The tasks of the shops beside this file: `presque worker shop_tasks`."""

from presque import App

app = App(queue="orders", attempts=3, keep="1h")


@app.task
def confirm(order: int, to: str) -> str:
    """Tell a customer that their order has arrived."""
    return f"order {order} is confirmed to {to}"
