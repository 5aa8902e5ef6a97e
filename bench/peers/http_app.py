"""Four verbs of presque behind a library that speaks HTTP, as that library is meant to be used.

`app` is an ASGI application without a framework, and an RSGI one for granian. It has the engine and the verbs
of presque, and the least that is needed around them: no gate, no limits, no waiting, no errors but 404. The
store is named by BENCH_STORE.
"""

import asyncio
import os

from presque import codec, names
from presque.commands import jobs, leases
from presque.engine.engine import Engine
from presque.errors import PresqueError
from presque.job import PLAIN
from presque.store.address import Address

JSON = "application/json"


class App:
    def __init__(self):
        self.engine = None

    async def start(self):
        self.engine = Engine(Address(unix=os.environ["BENCH_STORE"]))
        await self.engine.start()

    async def answer(self, method, path, body):
        """Status, headers, body."""
        _, first, *rest = path.split("/")
        if first == "q" and method == "POST":
            stored = asyncio.get_running_loop().create_future()
            queue = names.queue(rest[0])
            jobs.push(self.engine, queue, body, PLAIN, stored.set_result)
            job = await stored
            return 201, [("location", f"/j/{queue}/{job}")], codec.encode({"id": str(job), "queue": queue})
        if first == "q":
            found = asyncio.get_running_loop().create_future()
            jobs.fetch(
                self.engine, names.queue_list(rest[0]), 0, None, lambda one: found.set_result(one) or True
            )
            job = await found
            if job is None or isinstance(job, PresqueError):
                return 404, [], b'{"error":"no job"}'
            return 200, [("presque-queue", job.queue), ("presque-job-id", job.id)], job.body
        if first == "settle":
            request = codec.decode_request(body, leases.SettleRequest)
            settled = await leases.settle(self.engine, leases.settles(request), None)
            return 200, [], codec.encode({"settled": settled})
        if first == "control":
            queue = names.queue(rest[0])
            return 200, [], codec.encode({"queue": queue, "status": int(await self.engine.started(queue))})
        return 404, [], b"{}"

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await self.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, headers, said = await self.answer(scope["method"], scope["path"], body)
        lines = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))]
        lines += [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": said})

    def __rsgi_init__(self, loop):
        loop.run_until_complete(self.start())

    async def __rsgi__(self, scope, protocol):
        body = b"" if scope.method == "GET" else await protocol()
        status, headers, said = await self.answer(scope.method, scope.path, body)
        protocol.response_bytes(status, [("content-type", JSON), *headers], said)


app = App()
