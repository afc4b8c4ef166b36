-- Goes on pulling.
select tallybook.resume_pull()
