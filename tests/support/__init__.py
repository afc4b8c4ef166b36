"""What many tests need: a PostgreSQL of their own, and things to put into it through the real doors."""
