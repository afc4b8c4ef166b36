-- Asks for those of ours that a page of HubSpot's list should have shown and did not; how many.
select tallybook.ask_unseen(%(object_type)s, %(first_id)s::numeric, %(end_id)s::numeric, %(seen)s::text[])
