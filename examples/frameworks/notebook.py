"""A notebook, a cell after each line with %%: paste them into Jupyter, or open the file with Jupytext."""

# %% Tasks of a notebook are known to a worker in the notebook alone: others cannot import it.
import asyncio

from presque import App

app = App(queue="notebook", keep="1h")


@app.task
def square(number: int) -> int:
    """Something that takes long."""
    return number * number


# %% So the worker runs beside the cells. It ends with the kernel, or by `running.cancel()`.
running = asyncio.create_task(app.worker(concurrency=4).run())

# %% Cells are in an event loop already: use the methods that are awaited.
pushed = await square.apush.many([(number,) for number in range(5)])
results = [await one.aresult(timeout=30) for one in pushed]
results

# %% A task that is in a module can be pushed by its name alone, for workers anywhere.
id = await app.async_client.push("orders", {"task": "shop_tasks.confirm", "args": [7, "ana"]}, keep="1h")

# %%
running.cancel()
await asyncio.wait((running,))
