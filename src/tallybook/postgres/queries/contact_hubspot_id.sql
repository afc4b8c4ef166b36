-- By which id HubSpot knows a contact.
select hubspot_id from tallybook.contacts where id = %(contact_id)s
