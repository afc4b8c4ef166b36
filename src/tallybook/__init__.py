"""Prepaid credits and seat bookings that stay right in PostgreSQL, kept in step with HubSpot."""
