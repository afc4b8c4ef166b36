-- Asks for records to be read again.
select tallybook.ask_to_read(%(object_type)s, %(hubspot_ids)s::text[], %(after_s)s::numeric)
