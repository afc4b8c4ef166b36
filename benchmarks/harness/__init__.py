"""What the benchmarks share: a database, real servers, a lean load generator, the printed result."""
