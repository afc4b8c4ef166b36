-- Makes a contact's numbers HubSpot's and what came since; what became of it.
select tallybook.restore_contact(%(record)s::jsonb)
