-- Whether anything is in here that a restore would replace.
select exists (select from tallybook.contacts) or exists (select from tallybook.mock_exams)
    or exists (select from tallybook.staff) or exists (select from tallybook.api_keys)
    or exists (select from tallybook.audit_log)
