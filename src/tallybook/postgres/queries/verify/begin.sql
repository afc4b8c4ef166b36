-- One unchanging picture of everything, for as long as it takes to look.
begin transaction isolation level repeatable read read only
