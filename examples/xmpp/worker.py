"""A worker over XMPP: python worker.py [QUEUE]. Needs slixmpp, and XMPP_JID and XMPP_PASSWORD."""

import json
import os
import sys

from slixmpp import ET, ClientXMPP

QUEUE = sys.argv[1] if len(sys.argv) > 1 else "greetings"
ADDRESS = f"{QUEUE}@{os.environ.get('XMPP_DOMAIN', 'presque.localhost')}"
OURS = "urn:presque:0"


def work(job):
    if "name" not in job:
        raise ValueError("a greeting needs a name")
    print("hello,", job["name"], flush=True)


class Worker(ClientXMPP):
    def __init__(self):
        super().__init__(os.environ["XMPP_JID"], os.environ["XMPP_PASSWORD"])
        self.add_event_handler("session_start", self.begin)
        self.add_event_handler("message", self.came)
        self.add_event_handler("disconnected", lambda _: self.connect(*where()))

    def begin(self, _event):
        presence = self.make_presence(pto=ADDRESS)
        presence.append(ET.Element(f"{{{OURS}}}consume", count="10", seconds="60"))
        presence.send()

    def came(self, message):
        found = message.xml.find(f"{{{OURS}}}json")
        job = {} if found is None else json.loads(found.text)
        if job.get("event") != "job":
            print(message["body"] or message["error"]["text"], file=sys.stderr)
            return
        settled = {"cmd": "ack", "queue": job["queue"], "id": job["id"], "lease": job["lease"]}
        try:
            work(job["body"])
        except Exception as error:  # noqa: BLE001
            settled |= {"cmd": "fail", "error": str(error)}
        answer = self.make_message(message["from"], mtype="chat")
        ET.SubElement(answer.xml, f"{{{OURS}}}json").text = json.dumps(settled)
        answer.send()


def where():
    """The host and port of the server, if DNS does not tell them: XMPP_SERVER=127.0.0.1:5222."""
    host, _, port = os.environ.get("XMPP_SERVER", "").partition(":")
    return (host, int(port)) if host else ()


worker = Worker()
worker.connect(*where())
worker.loop.run_forever()
