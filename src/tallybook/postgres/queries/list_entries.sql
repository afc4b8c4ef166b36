-- One page of a contact's ledger, newest first.
select null as refusal, null as details, 'ok' as outcome,
    tallybook.entries_page(%(contact_id)s, %(page)s, %(per_page)s, %(action)s) as data, false as replayed
