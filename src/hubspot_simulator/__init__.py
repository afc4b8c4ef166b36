"""A stand-alone stand-in for HubSpot; reached over HTTP only."""
