-- Whether HubSpot was ever told that it belongs to this database, and nothing holds that up.
select tallybook.known_epoch() > 0 and tallybook.push_hold() is null
