-- What is sent of a contact of whom one number could not be read from the first.

select tallybook.begin_migration('20261121001950', 'push_beside_unreadable', '0.1.0');

-- A number that HubSpot has not shown yet is read before anything is written. Not one that nobody could read and that
-- waits for a person: reading it again shows the same, and would keep everything else about the contact back.
create or replace function tallybook.contact_plan(p_contact tallybook.contacts, p_skip text[])
returns tallybook.push_plan
language plpgsql stable
as $$
declare
    v_changes jsonb;
begin
    if coalesce(p_contact.merged_into::text, p_contact.erased_at::text, p_contact.archived_at::text) is not null
            or tallybook.is_deleted_there('contact', p_contact.id) then
        return row('drop', '{}')::tallybook.push_plan;
    elsif p_contact.hubspot_id is null then
        -- Without numbers: HubSpot's are met first, then ours are written as any others.
        return row('create', tallybook.given_texts(
            tallybook.contact_mirror(p_contact) || jsonb_build_object('tallybook_id', p_contact.id),
            p_skip))::tallybook.push_plan;
    elsif p_contact.crm_unread or p_contact.crm_modified_at is null or exists (
            select from tallybook.credit_balances b
            join tallybook.credit_types t on t.name = b.credit_type
            where b.contact_id = p_contact.id and t.hubspot_property is not null and t.retired_at is null
                and b.crm_base is null and not b.crm_unreadable and not exists (
                    select from tallybook.sync_conflicts s
                    where s.object_type = 'contact' and s.object_id = p_contact.id and s.field = t.name
                        and s.kind = 'unreadable' and s.resolved_at is null)) then
        return row('read', '{}')::tallybook.push_plan;
    end if;
    v_changes := tallybook.contact_changes(p_contact, p_skip);
    return row(case when v_changes = '{}' then 'drop' else 'update' end,
        tallybook.with_our_id(v_changes, p_contact.id, p_contact.crm_base))::tallybook.push_plan;
end
$$;

select tallybook.secure();
