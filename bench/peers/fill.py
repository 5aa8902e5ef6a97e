"""Enqueue jobs for one of the libraries: `python fill.py huey 10000`. Its module says how."""

import importlib
import sys

importlib.import_module(f"with_{sys.argv[1]}").fill(int(sys.argv[2]))
