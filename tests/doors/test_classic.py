from tests.rig import Server
def test_push_and_fetch(server: Server, queue_name: str) -> None:
    a=server.ask("POST", f"/q/{queue_name}", b'{"a":1}')
    assert (a.status, a.json) == (201, {"id": "1", "queue": queue_name})
    assert server.ask("GET", f"/q/{queue_name}").body == b'{"a":1}'
