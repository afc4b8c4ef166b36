-- Why nothing may be pushed; NULL: it may.
select tallybook.push_hold()
