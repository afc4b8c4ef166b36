-- Signs a contact out everywhere.
select refusal, details, outcome, data, replayed from tallybook.end_sessions(%(contact_id)s, %(epoch)s)
