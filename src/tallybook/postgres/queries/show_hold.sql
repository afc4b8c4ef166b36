-- Why nothing may be pushed, and whether our numbers stand against HubSpot's; NULLs: it may.
select tallybook.push_hold(), coalesce((select (s.value ->> 'ours_stand')::boolean
                                        from tallybook.sync_state s where s.name = 'hold'), false)
