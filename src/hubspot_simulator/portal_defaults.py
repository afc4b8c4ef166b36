"""The portal before anybody changes it: contacts, mock exams, bookings, their associations."""

from hubspot_simulator.definitions import (
    BOOKINGS,
    CONTACTS,
    MOCK_EXAMS,
    LinkType,
    ObjectType,
    Property,
    system_properties,
)

BALANCES = ("sj_credits", "cs_credits", "sjmini_credits", "mock_discussion_token", "shared_mock_credits")
MOCK_TYPES = ("Situational Judgment", "Clinical Skills", "Mini-mock", "Mock Discussion")
MOCK_SETS = tuple("ABCDEFGH")
PLACES = (
    "Mississauga",
    "Mississauga - B9",
    "Mississauga - Lab D",
    "Calgary",
    "Vancouver",
    "Montreal",
    "Richmond Hill",
    "Online",
)
REQUIRES_ATTENDANCE = 1340


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _texts(group: str, names: str) -> list[Property]:
    return [Property(name, _label(name), group=group) for name in names.split()]


def _numbers(group: str, names: str) -> list[Property]:
    return [Property(name, _label(name), "number", "number", group) for name in names.split()]


def _choice(group: str, name: str, options: tuple[str, ...]) -> Property:
    return Property(name, _label(name), "enumeration", "select", group, options=options)


def _contacts() -> ObjectType:
    group = "contactinformation"
    own = [
        Property("email", "Email", group=group, unique=True, hubspot_defined=True),
        Property("hs_additional_emails", "Additional emails", group=group, hubspot_defined=True),
        *(
            Property(name, label, group=group, hubspot_defined=True)
            for name, label in (
                ("firstname", "First Name"),
                ("lastname", "Last Name"),
                ("phone", "Phone Number"),
            )
        ),
        *_texts(group, "student_id"),
        *_numbers(group, " ".join(BALANCES)),
        Property("ndecc_exam_date", "NDECC exam date", "date", "date", group),
    ]
    every = [*own, *system_properties(custom=False, group=group)]
    return ObjectType(
        type_id=CONTACTS,
        name="contacts",
        singular="Contact",
        plural="Contacts",
        properties={one.name: one for one in every},
        primary="email",
        searchable=("email", "firstname", "lastname", "phone"),
    )


def _mock_exams() -> ObjectType:
    group = "mock_exams_information"
    own = [
        *_numbers(group, "mock_exam_id capacity total_bookings start_time end_time"),
        *_texts(group, "mock_exam_name exam_date address status"),
        _choice(group, "mock_type", MOCK_TYPES),
        _choice(group, "mock_set", MOCK_SETS),
        _choice(group, "location", PLACES),
        _choice(group, "is_active", ("true", "false", "scheduled")),
        Property("scheduled_activation_datetime", "Scheduled activation", "datetime", "date", group),
    ]
    every = [*own, *system_properties(custom=True, group=group)]
    return ObjectType(
        type_id=MOCK_EXAMS,
        name="mock_exams",
        singular="Mock exam",
        plural="Mock exams",
        properties={one.name: one for one in every},
        primary="mock_exam_name",
        searchable=("mock_exam_name",),
    )


def _bookings() -> ObjectType:
    group = "bookings_information"
    rolled = [
        Property(name, _label(name), kind, field, group, rollup=(MOCK_EXAMS, name))
        for name, kind, field in (
            ("exam_date", "string", "text"),
            ("start_time", "number", "number"),
            ("end_time", "number", "number"),
            ("mock_type", "string", "text"),
            ("mock_set", "string", "text"),
            ("location", "string", "text"),
        )
    ]
    own = [
        *_texts(
            group,
            "booking_id name email student_id token_used idempotency_key attending_location "
            "associated_mock_exam associated_contact_id token_refund_admin status booking_status",
        ),
        _choice(group, "is_active", ("Active", "Cancelled", "Completed")),
        _choice(group, "attendance", ("Yes", "No")),
        Property("dominant_hand", "Dominant hand", "bool", "booleancheckbox", group),
        Property("ndecc_exam_date", "NDECC exam date", "date", "date", group),
        Property("token_refunded", "Token refunded", "bool", "booleancheckbox", group),
        *_numbers(group, "token_refunded_at"),
    ]
    every = [*own, *rolled, *system_properties(custom=True, group=group)]
    return ObjectType(
        type_id=BOOKINGS,
        name="bookings",
        singular="Booking",
        plural="Bookings",
        properties={one.name: one for one in every},
        primary="booking_id",
        searchable=("booking_id", "name", "email"),
    )


def object_types() -> list[ObjectType]:
    """The three object types with every property of the old system, and none of a newer one."""
    return [_contacts(), _mock_exams(), _bookings()]


def link_types() -> list[LinkType]:
    """The unlabelled associations of the three, and the label that names a prerequisite session."""
    return [
        LinkType(1301, BOOKINGS, CONTACTS, 1302, name="bookings_to_contacts"),
        LinkType(1302, CONTACTS, BOOKINGS, 1301, name="contacts_to_bookings"),
        LinkType(1303, BOOKINGS, MOCK_EXAMS, 1304, name="bookings_to_mock_exams"),
        LinkType(1304, MOCK_EXAMS, BOOKINGS, 1303, name="mock_exams_to_bookings"),
        LinkType(1305, MOCK_EXAMS, CONTACTS, 1306, name="mock_exams_to_contacts"),
        LinkType(1306, CONTACTS, MOCK_EXAMS, 1305, name="contacts_to_mock_exams"),
        LinkType(1307, MOCK_EXAMS, MOCK_EXAMS, 1307, name="mock_exams_to_mock_exams"),
        LinkType(
            REQUIRES_ATTENDANCE, MOCK_EXAMS, MOCK_EXAMS, 1341, "requires attendance at", name="requires"
        ),
        LinkType(1341, MOCK_EXAMS, MOCK_EXAMS, REQUIRES_ATTENDANCE, "is required by", name="required_by"),
    ]
