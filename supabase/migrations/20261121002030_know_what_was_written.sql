-- An outage: writes of ours were on their way when HubSpot went, and meanwhile people typed more than HubSpot keeps.
-- Only the numbers that those writes named are unknowable then, not all numbers of the contact: `absorb_history` asks
-- this from 20261121002050 on.

select tallybook.begin_migration('20261121002030', 'know_what_was_written', '0.1.0');

-- Whether an own write that nobody has read yet may have set this property: the stamps name all of them, when they
-- are all shown.
create function tallybook.is_written_since(p_answer jsonb, p_contact_id uuid, p_property text)
returns boolean
language sql stable
set search_path = ''
as $$
    select exists (
        select from tallybook.contacts c
        cross join lateral jsonb_array_elements_text(
            (p_answer -> 'history' -> 'stamps') || jsonb_build_array(p_answer -> 'stamp')) with ordinality as s (stamp, rank)
        where c.id = p_contact_id and s.stamp is distinct from c.crm_stamp
            and strpos(s.stamp || ' ', ' ' || p_property || '=') > 0
            and s.rank > coalesce((
                select min(o.rank) from jsonb_array_elements_text(p_answer -> 'history' -> 'stamps')
                    with ordinality as o (stamp, rank)
                where o.stamp = c.crm_stamp), 0))
$$;

select tallybook.secure();
