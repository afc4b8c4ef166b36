"""PostgreSQL: pool, migrations, named queries, and the names of its constraints."""
