-- One number for everything the mirrored tables say, except when it was compared last.
select (select sum(hashtextextended((to_jsonb(c) - 'synced_at')::text, 1)) from tallybook.contacts c)
    + (select coalesce(sum(hashtextextended((to_jsonb(e) - 'synced_at')::text, 2)), 0) from tallybook.mock_exams e)
    + (select coalesce(sum(hashtextextended((to_jsonb(b) - 'synced_at')::text, 3)), 0) from tallybook.bookings b)
