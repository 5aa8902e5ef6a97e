"""The settings of a server: where they come from, how each is written."""
