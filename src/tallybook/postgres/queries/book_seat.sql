-- Books a seat and spends a credit in one decision.
select (a.answer).refusal, (a.answer).details, (a.answer).outcome, (a.answer).data, (a.answer).replayed
from (
    select case when %(limit_key)s::text is null or tallybook.allow_call(%(limit_key)s, %(limit_per_min)s)
        then tallybook.book_seat(
            %(contact_id)s, %(epoch)s, %(student_id)s, %(email)s,
            %(mock_exam)s, %(attending_location)s, %(dominant_hand)s, %(actor)s, %(override_reason)s,
            %(credential)s, %(route)s, %(key)s, %(fingerprint)s, %(dry_run)s)
        else tallybook.refuse('RATE_LIMITED') end as answer
    offset 0 -- computed once, not once per column
) a
