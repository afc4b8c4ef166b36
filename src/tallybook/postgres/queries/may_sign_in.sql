-- Whether this address may try to sign in now.
select tallybook.may_sign_in(%(address)s)
