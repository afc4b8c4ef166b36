-- What HubSpot lets nobody write is not found missing there again and again.

select tallybook.begin_migration('20261121002040', 'skip_what_nobody_can_write', '0.1.0');

drop function tallybook.queue_unpushed(text, uuid, integer, boolean);

-- Looks through p_limit objects after p_after for something HubSpot has not been told and no outbox row says so; with
-- p_repair they are queued. `last_id` NULL: that was the end. p_skip: the properties that are never sent; a difference in
-- them alone would be queued by every look, dropped by the push, and counted for ever.
create function tallybook.queue_unpushed(
    p_object_type text, p_after uuid, p_limit integer, p_repair boolean, p_skip text[] default '{}',
    out last_id uuid, out looked_at integer, out unpushed integer
)
language plpgsql volatile
set search_path = ''
set lock_timeout = '5s'
as $$
declare
    v_ids uuid[];
    v_unpushed uuid[];
begin
    select array_agg(o.id order by o.id) into v_ids from (
        select c.id from tallybook.contacts c
        where p_object_type = 'contact' and c.id > p_after and c.merged_into is null and c.erased_at is null
        union all
        select e.id from tallybook.mock_exams e where p_object_type = 'mock_exam' and e.id > p_after
        union all
        select b.id from tallybook.bookings b where p_object_type = 'booking' and b.id > p_after
        order by 1 limit p_limit) o;
    looked_at := coalesce(cardinality(v_ids), 0);
    last_id := case when looked_at = p_limit then v_ids[p_limit] end;
    select array_agg(p.id) into v_unpushed from (
        select c.id, tallybook.contact_plan(c, p_skip) as plan from tallybook.contacts c
        where p_object_type = 'contact' and c.id = any (v_ids)
        union all
        select e.id, tallybook.mock_exam_plan(e, p_skip) from tallybook.mock_exams e
        where p_object_type = 'mock_exam' and e.id = any (v_ids)
        union all
        select b.id, tallybook.booking_plan(b, p_skip) from tallybook.bookings b
        where p_object_type = 'booking' and b.id = any (v_ids)) p
    where (p.plan).action <> 'drop'
        and not exists (select from tallybook.outbox o where o.object_type = p_object_type and o.object_id = p.id);
    unpushed := coalesce(cardinality(v_unpushed), 0);
    if p_repair and unpushed > 0 then
        perform tallybook.note_changes(array_fill(p_object_type, array[unpushed]), v_unpushed);
    end if;
end
$$;

select tallybook.secure();
