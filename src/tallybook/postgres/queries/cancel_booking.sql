-- Cancels one booking, or says what that would give back.
select (a.answer).refusal, (a.answer).details, (a.answer).outcome, (a.answer).data, (a.answer).replayed
from (
    select case when %(limit_key)s::text is null or tallybook.allow_call(%(limit_key)s, %(limit_per_min)s)
        then tallybook.cancel_booking(
            %(contact_id)s, %(epoch)s, %(student_id)s, %(email)s,
            %(booking)s, %(as_staff)s, %(actor)s, %(reason)s, %(refund)s,
            %(credential)s, %(route)s, %(key)s, %(fingerprint)s, %(dry_run)s)
        else tallybook.refuse('RATE_LIMITED') end as answer
    offset 0 -- computed once, not once per column
) a
