-- Closes everything that is not opened by name.
select tallybook.secure()
