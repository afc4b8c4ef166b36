-- Makes every token of a staff account worthless.
update tallybook.staff set session_epoch = session_epoch + 1 where id = %(staff_id)s
