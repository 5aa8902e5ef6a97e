"""The same shop with Flask.

pip install flask presque-client
flask --app flask_shop run
flask --app flask_shop worker
"""

from flask import Flask, abort, request
from shop_tasks import app, confirm

from presque.client import ClientError, NotFound

shop = Flask(__name__)


@shop.post("/orders")
def place() -> tuple[dict[str, str], int]:
    """Take an order. It is confirmed in the background."""
    order = request.get_json()
    pushed = confirm.push(order["number"], order["to"])
    return {"job": pushed.id}, 202


@shop.get("/jobs/<id>")
def job(id: str) -> dict[str, object]:
    """How a job went; with `wait`, as soon as it is done."""
    try:
        found = app.client.job("orders", id, request.args.get("wait", 0.0, float))
    except NotFound:
        abort(404)
    return {"state": found["state"], "result": found["result"]}


@shop.errorhandler(ClientError)
def no_queue(error: ClientError) -> tuple[dict[str, str], int]:
    """The server was not reached, or refused: nothing was taken."""
    return {"error": str(error)}, 503


@shop.cli.command("worker")
def worker() -> None:
    """Do the tasks, within the context of the application."""
    app.worker().start()
