-- Nothing is pushed from here before HubSpot was asked whether it is ahead.
select tallybook.hold_pushing('restored', '{"unchecked": true}')
