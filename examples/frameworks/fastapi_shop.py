"""A shop with FastAPI: pushes a task for each order, and shows how it went.

pip install fastapi uvicorn presque-client
uvicorn fastapi_shop:api
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from shop_tasks import app, confirm

from presque.client import ClientError, NotFound


class Order(BaseModel):
    """What a customer sends."""

    number: int
    to: str


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """A worker beside the requests. Leave it out where `presque worker shop_tasks` runs elsewhere."""
    running = asyncio.create_task(app.worker().run())
    yield
    running.cancel()
    await asyncio.wait((running,))


api = FastAPI(lifespan=lifespan)


@api.post("/orders", status_code=202)
async def place(order: Order) -> dict[str, str]:
    """Take an order. It is confirmed in the background."""
    pushed = await confirm.apush(order.number, order.to)
    return {"job": pushed.id}


@api.get("/jobs/{id}")
async def job(id: str, wait: float = 0) -> dict[str, object]:
    """How a job went; with `wait`, as soon as it is done."""
    try:
        found = await app.async_client.job("orders", id, wait)
    except NotFound:
        raise HTTPException(404, "there is no such job") from None
    return {"state": found["state"], "result": found["result"]}


@api.exception_handler(ClientError)
async def no_queue(_: Request, error: ClientError) -> JSONResponse:
    """The server was not reached, or refused: nothing was taken."""
    return JSONResponse({"error": str(error)}, 503)
