-- What is to be sent about leased contacts, decided and marked as sent now.
select tallybook.prepare_contacts(%(token)s, %(ids)s::uuid[], %(skip)s::text[])
