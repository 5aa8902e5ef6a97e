"""The store: connections to it, and the one that presque runs itself. Knows nothing of queues."""
