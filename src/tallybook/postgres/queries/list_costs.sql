-- What each metered action costs, for price tags.
select null as refusal, null as details, 'ok' as outcome, jsonb_build_object(
    'actions', (select coalesce(jsonb_agg(jsonb_build_object('action', m.name, 'credit_type', m.credit_type,
        'credits', m.cost_credits) order by m.name), '[]')
        from tallybook.metered_actions m where m.retired_at is null),
    'packs', (select coalesce(jsonb_agg(jsonb_build_object('pack', p.name, 'credit_type', p.credit_type,
        'credits', p.credits) order by p.credits), '[]')
        from tallybook.packs p where p.retired_at is null)) as data, false as replayed
