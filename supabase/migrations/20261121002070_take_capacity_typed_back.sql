-- A capacity below the seats is refused, and ours lowered to the seats. When staff then typed what had stood there before,
-- it was no difference to the base, and the lowered one was written over it.

select tallybook.begin_migration('20261121002070', 'take_capacity_typed_back', '0.1.0');

-- Merges one answer into a session; the caller holds its lock, and those of its students where it may move.
create or replace function tallybook.merge_mock_exam(p_exam_id uuid, p_item jsonb, p_importing boolean)
returns tallybook.absorbed
language plpgsql volatile
as $$
declare
    v_hubspot_id text := p_item ->> 'hubspot_id';
    v_exam tallybook.mock_exams;
    v_after tallybook.mock_exams;
    v_texts jsonb;
    v_ours jsonb;
    v_edits jsonb;
    v_taken jsonb := '{}';
    v_refused jsonb := '{}';
    v_refusal jsonb;
    v_wanted jsonb;
    v_field text;
    v_both text[];
begin
    select * into v_exam from tallybook.mock_exams e where e.id = p_exam_id;
    if (p_item ->> 'updated_at')::timestamptz < v_exam.crm_modified_at then
        return tallybook.became(p_item, p_exam_id, 'older');
    elsif (p_item ->> 'archived')::boolean then
        return tallybook.lose_mock_exam(v_exam, p_item);
    end if;
    v_texts := (p_item -> 'texts') - tallybook.frozen_by_others('mock_exam', p_exam_id, 'refused_value');
    v_ours := tallybook.mock_exam_mirror(v_exam);
    v_edits := tallybook.remote_edits(v_ours, v_exam.crm_base, v_exam.crm_sent, v_texts);
    -- Our count is of bookings; whatever is typed there is written over.
    v_edits := v_edits - 'total_bookings';

    if v_edits ?| tallybook.schedule_fields() then
        select jsonb_object_agg(f, coalesce(v_edits -> f, v_ours -> f)) into v_wanted
        from unnest(tallybook.schedule_fields()) f;
        if v_wanted <> p_item -> 'schedule' -> 'texts' then
            -- Ours differs in another part of the schedule: which instants the mixture means, the program computes.
            return tallybook.became(p_item, p_exam_id, 'need', null, jsonb_build_object('schedule', v_wanted));
        end if;
        v_refusal := tallybook.move_session(p_exam_id, (p_item -> 'schedule') - 'texts');
        if v_refusal is null then
            v_taken := v_taken || (select jsonb_object_agg(f, v_edits -> f) from unnest(tallybook.schedule_fields()) f
                                   where v_edits ? f);
        else
            v_refused := v_refused || (select jsonb_object_agg(f, v_refusal)
                                       from unnest(tallybook.schedule_fields()) f where v_edits ? f);
        end if;
    end if;
    -- The time of opening before what may need it.
    foreach v_field in array array['scheduled_activation_datetime', 'is_active', 'mock_type', 'mock_set', 'address',
                                   'capacity'] loop
        continue when not v_edits ? v_field;
        if p_item -> 'unreadable' ? v_field then
            v_refusal := jsonb_build_object('code', 'VALIDATION_ERROR', 'problem', p_item -> 'unreadable' ->> v_field);
        else
            v_refusal := tallybook.set_mock_exam_text(p_exam_id, v_field, v_edits ->> v_field);
        end if;
        if v_refusal is null then
            v_taken := v_taken || jsonb_build_object(v_field, v_edits -> v_field);
        else
            v_refused := v_refused || jsonb_build_object(v_field, v_refusal);
        end if;
    end loop;

    v_texts := v_texts - array(select jsonb_object_keys(v_refused));
    update tallybook.mock_exams e
    set hubspot_id = v_hubspot_id, crm_unknown = false,
        archived_at = case when e.crm_base ->> 'archived' = 'true' then null else e.archived_at end,
        -- A capacity lowered to the seats was agreed with nobody; as base it leaves whatever is typed next an edit, also
        -- what stood there before.
        crm_base = (e.crm_base || v_texts || case when v_refused ? 'capacity' and e.capacity <> v_exam.capacity
                                             then jsonb_build_object('capacity', e.capacity::text) else '{}' end) - 'archived',
        crm_sent = tallybook.without_agreed(e.crm_sent, tallybook.mock_exam_mirror(e), v_texts),
        crm_modified_at = (p_item ->> 'updated_at')::timestamptz,
        updated_at = case when v_taken <> '{}' or e.capacity <> v_exam.capacity
                          or e.crm_base ->> 'archived' = 'true' then pg_catalog.clock_timestamp()
                     else e.updated_at end,
        synced_at = case when tallybook.mock_exam_mirror(e) @> ((p_item -> 'texts') - 'tallybook_id')
                    then pg_catalog.clock_timestamp() else e.synced_at end
    where e.id = p_exam_id
    returning * into v_after;

    for v_field in select jsonb_object_keys(v_refused) loop
        perform tallybook.open_conflict('mock_exam', p_exam_id, v_field, 'refused_value',
            tallybook.mock_exam_mirror(v_after) ->> v_field,
            p_item -> 'texts' ->> v_field, v_refused -> v_field, true);
        perform tallybook.keep_answer('mock_exam', p_exam_id, v_field, 'refused_value', p_item);
    end loop;
    -- Staff decide about sessions there; what we had and they did not know is shown to them. Not what became of ours
    -- while theirs was refused: the seats a capacity was lowered to are nobody's wish.
    v_both := array(select t from jsonb_object_keys(v_taken) t
                    where v_exam.crm_base ? t and v_ours ->> t is distinct from v_exam.crm_base ->> t
                        and not tallybook.is_frozen('mock_exam', p_exam_id, t));
    perform tallybook.close_conflicts('mock_exam', p_exam_id, 'refused_value',
        array(select jsonb_object_keys(v_texts)), 'no longer refused');
    perform tallybook.close_conflicts('mock_exam', p_exam_id, 'deleted', array['record'], 'it is there');
    foreach v_field in array v_both loop
        perform tallybook.open_conflict('mock_exam', p_exam_id, v_field, 'both_changed', v_ours ->> v_field,
            v_taken ->> v_field, jsonb_build_object('kept', 'theirs'), false);
    end loop;
    if v_taken <> '{}' then
        perform tallybook.record('mock_exam.edited', 'mock_exam', p_exam_id, null,
            coalesce(p_item ->> 'edited_by', 'hubspot'), (
                select jsonb_object_agg(t.key, jsonb_build_object('from', v_ours -> t.key, 'to', t.value))
                from jsonb_each(v_taken) t), null);
    end if;
    perform tallybook.note_mock_exam(p_exam_id,
        (v_after.crm_base, v_after.updated_at) is distinct from (v_exam.crm_base, v_exam.updated_at), p_importing);
    return tallybook.became(p_item, p_exam_id, 'absorbed',
        case when v_refused <> '{}' then 'refused: ' || array_to_string(array(select jsonb_object_keys(v_refused)), ', ') end,
        null);
end
$$;

-- Gives a session a text a person chose over HubSpot's, and pushes it.
create or replace function tallybook.choose_mock_exam_text(
    p_conflict tallybook.sync_conflicts, p_text text, p_choice text, p_actor text
)
returns tallybook.answer
language plpgsql volatile
as $$
declare
    v_problem text := tallybook.unreadable_text(p_conflict.field, p_text);
    v_refusal jsonb;
begin
    if v_problem is not null then
        return tallybook.refuse('VALIDATION_ERROR', jsonb_build_object('field', 'value', 'problem', v_problem));
    end if;
    perform from tallybook.mock_exams e where e.id = p_conflict.object_id for no key update;
    begin
        v_refusal := tallybook.set_mock_exam_text(p_conflict.object_id, p_conflict.field, p_text);
        if v_refusal is not null then
            -- What HubSpot's value would lower to the seats stays as it is: a refused choice changes nothing.
            raise exception using errcode = 'TB001';
        end if;
    exception when sqlstate 'TB001' then
        return tallybook.refuse(v_refusal ->> 'code', v_refusal - 'code');
    end;
    update tallybook.mock_exams e
    set updated_at = pg_catalog.clock_timestamp(),
        crm_base = e.crm_base || case when p_conflict.kind = 'refused_value'
                                 then jsonb_build_object(p_conflict.field, p_conflict.theirs) else '{}' end
    where e.id = p_conflict.object_id;
    perform tallybook.settle_conflict(p_conflict, p_choice, p_actor);
    perform tallybook.note_mock_exam(p_conflict.object_id, true, false);
    return tallybook.grant_answer('ok', '{}');
end
$$;

select tallybook.secure();
