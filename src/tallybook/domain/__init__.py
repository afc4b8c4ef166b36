"""Pure rules and words: standard library only, no clock, no sockets, no SQL."""
