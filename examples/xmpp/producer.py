"""Pushes a job for each name over XMPP, and prints its id: python producer.py QUEUE NAME… Needs slixmpp."""

import json
import os
import sys

from slixmpp import ET, ClientXMPP

OURS = "urn:presque:0"
QUEUE, *NAMES = sys.argv[1:]
ADDRESS = f"{QUEUE}@{os.environ.get('XMPP_DOMAIN', 'presque.localhost')}"


class Producer(ClientXMPP):
    def __init__(self):
        super().__init__(os.environ["XMPP_JID"], os.environ["XMPP_PASSWORD"])
        self.add_event_handler("session_start", self.push)

    async def push(self, _event):
        for name in NAMES:
            iq = self.make_iq_set(ito=ADDRESS)
            command = {"cmd": "push", "job": {"name": name}}
            ET.SubElement(iq.xml, f"{{{OURS}}}json").text = json.dumps(command)
            answer = await iq.send()  # raises IqError with the reason if it was refused
            print(json.loads(answer.xml.find(f"{{{OURS}}}json").text)["id"])
        self.disconnect()


producer = Producer()
host, _, port = os.environ.get("XMPP_SERVER", "").partition(":")
producer.connect(*((host, int(port)) if host else ()))
producer.loop.run_until_complete(producer.disconnected)
