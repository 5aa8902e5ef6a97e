"""The version alone, so that nothing has to import the face of the package for it."""

__version__ = "0.1.0.dev0"
