"""The whole product over HTTP: real processes, a real database, and the simulator in place of HubSpot."""
