"""The first floor: the queue itself, in the store."""
