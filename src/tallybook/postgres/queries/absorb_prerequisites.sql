-- Merges which sessions have to be attended first; gives the HubSpot ids of those that are not stored.
select tallybook.absorb_prerequisites(%(required)s::jsonb)
