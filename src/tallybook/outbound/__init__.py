"""Other sockets out: mail."""
