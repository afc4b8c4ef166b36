"""Periodic work with leases."""
