"""What people do in the proof, and how often."""

NO_NUMBERS = ("12abc", "-4", "2.5", "1099511627776", "five", "--")
# What is done how often. Most are numbers: they are what nobody else merges.
CHANCES = {
    "type_a_number": 42,
    "type_what_we_push": 8,
    "type_no_number": 4,
    "type_a_name": 5,
    "type_a_date": 2,
    "type_an_address": 1,
    "archive_for_a_while": 1,
    "type_a_status": 4,
    "type_active_again": 1,
    "type_in_a_session": 3,
    "book": 22,
    "cancel": 6,
    "move": 4,
    "set_a_date": 2,
    "grant": 8,
}
