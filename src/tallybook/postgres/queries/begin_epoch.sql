-- The epoch to write to HubSpot next; NULL while somebody else writes one.
select tallybook.begin_epoch()
