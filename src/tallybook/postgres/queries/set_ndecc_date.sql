-- Stores the date of the student's real examination.
select (a.answer).refusal, (a.answer).details, (a.answer).outcome, (a.answer).data, (a.answer).replayed
from (
    select case when %(limit_key)s::text is null or tallybook.allow_call(%(limit_key)s, %(limit_per_min)s)
        then tallybook.set_ndecc_date(
            %(contact_id)s, %(epoch)s, %(student_id)s, %(email)s,
            %(on)s, %(actor)s, %(time_zone)s)
        else tallybook.refuse('RATE_LIMITED') end as answer
    offset 0 -- computed once, not once per column
) a
