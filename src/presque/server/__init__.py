"""The server as a whole: builds its parts, runs them in one process or several, stops them."""

BACKLOG = 2048
"""How many clients may wait for their connection to be accepted."""
