-- HubSpot has this epoch now.
select tallybook.confirm_epoch(%(epoch)s)
