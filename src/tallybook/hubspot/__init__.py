"""HubSpot over HTTP: client, call budget, field mapping."""
