"""A door: WebSocket. One command or an array of them in a message; leased jobs come as events."""
