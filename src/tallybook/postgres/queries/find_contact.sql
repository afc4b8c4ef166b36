-- The UUID of a contact as people write it.
select tallybook.find_contact(%(contact)s)
