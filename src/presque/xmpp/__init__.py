"""A door: XMPP. Every queue is an address, for people who chat with it and for programs."""
