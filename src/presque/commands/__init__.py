"""The second floor: the verbs. They read what was asked, and call the engine. No sockets here."""
