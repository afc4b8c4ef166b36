-- Of a person who was forgotten no name, address, student ID or date is left, nor an alias of theirs, nor what
-- programs said about their credits.
select 'contact ' || c.id as object, 'was erased, and still has a text' as problem
from tallybook.contacts c
where c.erased_at is not null
    and (num_nonnulls(c.email, c.student_id, c.firstname, c.lastname, c.ndecc_exam_on) > 0
         or c.crm_base <> '{}' or c.crm_sent <> '{}')
union all
select 'contact ' || c.id, 'was erased, and still has the alias of a ' || a.kind
from tallybook.contacts c
join tallybook.contact_aliases a on a.contact_id = c.id and a.kind <> 'hubspot_id'
where c.erased_at is not null
union all
select 'contact ' || c.id, 'was erased, and still has what was said of entry ' || u.entry_id
from tallybook.contacts c
join tallybook.credit_uses u on u.contact_id = c.id and u.metadata is not null
where c.erased_at is not null
union all
select 'contact ' || c.id, 'was erased, and still has what was said of hold ' || u.group_id
from tallybook.contacts c
join tallybook.hold_uses u on u.contact_id = c.id and u.metadata <> '{}'
where c.erased_at is not null
