-- What was sent about these contacts was refused before it was applied.
select tallybook.refuse_contacts(%(token)s, %(ids)s::uuid[])
