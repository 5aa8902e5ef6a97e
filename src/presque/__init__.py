"""presque: a persistent job queue that anyone can use with curl."""

__version__ = "0.1.0.dev0"
