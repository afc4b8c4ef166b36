"""The one table of addresses. What is not here does not exist; what is here says who may call it."""

from __future__ import annotations

from tallybook.api import answer_shapes as shapes
from tallybook.api import login as login_handlers
from tallybook.api import operations, webhooks
from tallybook.api import requests as asks
from tallybook.api import student_handlers as student
from tallybook.api.action_routes import ACTION_ROUTES
from tallybook.api.admin_routes import ADMIN_ROUTES
from tallybook.api.callers import Access
from tallybook.api.route import Handler, OtherAnswer, Route
from tallybook.domain import errors

_SEAT_ERRORS = (
    errors.StudentNotFound,
    errors.ExamNotFound,
    errors.ExamNotActive,
    errors.ExamInPast,
    errors.BookingClosed,
    errors.DuplicateBooking,
    errors.TimeConflict,
    errors.PrerequisiteNotMet,
    errors.InsufficientCredits,
    errors.ExamFull,
    errors.LockTimeout,
)
_CANCEL_ERRORS = (
    errors.StudentNotFound,
    errors.BookingNotFound,
    errors.BookingNotLive,
    errors.CancellationClosed,
    errors.LockTimeout,
)
_MISS_ERRORS = (errors.StudentNotFound, errors.CrmBusy, errors.CrmUnavailable)
_ALREADY = (
    OtherAnswer(200, "Recognised: the student holds this seat already, or it was a dry run.", shapes.Booked),
)

_SIGN_IN = (
    Route(
        method="POST",
        path="/api/user/login",
        access=Access.PUBLIC,
        handler=login_handlers.login,
        summary="Sign in with student ID and e-mail, then with the mailed code where one is asked for",
        body=asks.LoginBody,
        answer=shapes.Session,
        also=(
            OtherAnswer(202, "A code is on its way if the pair is known; same for all.", shapes.CodeAsked),
        ),
        errors=(errors.LoginFailed, *_MISS_ERRORS),
        allowed_observing=True,
        tag="sign-in",
    ),
    Route(
        method="POST",
        path="/api/user/logout",
        access=Access.STUDENT,
        handler=login_handlers.logout,
        summary="Sign out everywhere",
        body=asks.PairBody,
        answer=shapes.Nothing,
        errors=(*_MISS_ERRORS, errors.LockTimeout),
        allowed_observing=True,
        tag="sign-in",
    ),
    Route(
        method="GET",
        path="/api/user/me",
        access=Access.STUDENT,
        handler=student.me,
        summary="The student's profile and credits",
        query=asks.PairQuery,
        answer=shapes.Student,
        errors=_MISS_ERRORS,
        tag="sign-in",
    ),
    Route(
        method="PUT",
        path="/api/user/update-ndecc-date",
        access=Access.STUDENT,
        handler=student.update_ndecc_date,
        summary="Set the date of the student's NDECC exam",
        body=asks.NdeccDateBody,
        answer=shapes.NdeccDate,
        errors=(*_MISS_ERRORS, errors.LockTimeout),
        tag="sign-in",
    ),
)

_MOCK_EXAMS = (
    Route(
        method="GET",
        path="/api/mock-exams/available",
        access=Access.PUBLIC,
        handler=student.available,
        summary="Mock exams of one type that can be booked",
        query=asks.AvailableQuery,
        answer=list[shapes.MockExam],
        errors=(errors.InvalidMockType,),
        tag="mock exams",
    ),
    Route(
        method="GET",
        path="/api/mock-exams/{mock_exam}/capacity",
        access=Access.PUBLIC,
        handler=student.capacity,
        summary="Seats left in one mock exam",
        query=asks.CapacityQuery,
        answer=shapes.Capacity,
        errors=(errors.ExamNotFound,),
        tag="mock exams",
    ),
    Route(
        method="POST",
        path="/api/mock-exams/validate-credits",
        access=Access.STUDENT,
        handler=student.validate_credits,
        summary="Can the student book a mock exam of this type?",
        body=asks.ValidateCreditsBody,
        answer=shapes.CreditCheck,
        errors=(errors.InvalidMockType, *_MISS_ERRORS),
        allowed_observing=True,
        tag="mock exams",
    ),
    Route(
        method="GET",
        path="/api/mock-discussions/available",
        access=Access.PUBLIC,
        handler=student.available_discussions,
        summary="Mock discussions that can be booked",
        query=asks.DiscussionsQuery,
        answer=list[shapes.MockExam],
        tag="mock exams",
    ),
    Route(
        method="POST",
        path="/api/mock-discussions/validate-credits",
        access=Access.STUDENT,
        handler=student.validate_discussion_credits,
        summary="Can the student book a mock discussion?",
        body=asks.ValidateDiscussionBody,
        answer=shapes.CreditCheck,
        errors=_MISS_ERRORS,
        allowed_observing=True,
        tag="mock exams",
    ),
)

_BOOKINGS = (
    Route(
        method="POST",
        path="/api/bookings/create",
        access=Access.STUDENT,
        handler=student.create_booking,
        summary="Book a seat and spend a credit",
        body=asks.CreateBookingBody,
        answer=shapes.Booked,
        status=201,
        also=_ALREADY,
        errors=(*_SEAT_ERRORS, errors.CrmBusy, errors.CrmUnavailable),
        idempotent=True,
        tag="bookings",
    ),
    Route(
        method="POST",
        path="/api/mock-discussions/create-booking",
        access=Access.STUDENT,
        handler=student.create_discussion_booking,
        summary="Book a seat in a mock discussion",
        body=asks.CreateDiscussionBody,
        answer=shapes.Booked,
        status=201,
        also=_ALREADY,
        errors=(*_SEAT_ERRORS, errors.CrmBusy, errors.CrmUnavailable),
        idempotent=True,
        tag="bookings",
    ),
    Route(
        method="GET",
        path="/api/bookings/list",
        access=Access.STUDENT,
        handler=student.bookings,
        summary="The student's bookings, page by page",
        query=asks.ListBookingsQuery,
        answer=shapes.Bookings,
        errors=_MISS_ERRORS,
        tag="bookings",
    ),
    Route(
        method="POST",
        path="/api/bookings/batch-cancel",
        access=Access.STUDENT,
        handler=student.cancel_several,
        summary="Cancel several of the student's bookings; each is reported",
        body=asks.BatchCancelBody,
        answer=shapes.CancelledBookings,
        errors=(errors.StudentNotFound, errors.LockTimeout),
        idempotent=True,
        tag="bookings",
    ),
    Route(
        method="GET",
        path="/api/bookings/{booking}.ics",
        access=Access.STUDENT,
        handler=student.booking_file,
        summary="A booking for the student's calendar",
        query=asks.PairQuery,
        errors=(errors.StudentNotFound, errors.BookingNotFound),
        media_type="text/calendar",
        tag="bookings",
    ),
    Route(
        method="GET",
        path="/api/bookings/{booking}",
        access=Access.STUDENT,
        handler=student.booking,
        summary="One booking",
        query=asks.PairQuery,
        answer=shapes.Booking,
        errors=(errors.StudentNotFound, errors.BookingNotFound),
        tag="bookings",
    ),
    Route(
        method="DELETE",
        path="/api/bookings/{booking}",
        access=Access.STUDENT,
        handler=student.cancel,
        summary="Cancel a booking; the credit comes back as the catalog's refund rule says",
        body=asks.CancelBody,
        answer=shapes.Cancellation,
        errors=_CANCEL_ERRORS,
        idempotent=True,
        tag="bookings",
    ),
    Route(
        method="GET",
        path="/api/bookings/{booking}/cancellation",
        access=Access.STUDENT,
        handler=student.preview,
        summary="What cancelling this booking would give back",
        query=asks.PairQuery,
        answer=shapes.Cancellation,
        errors=_CANCEL_ERRORS,
        tag="bookings",
    ),
    Route(
        method="POST",
        path="/api/bookings/{booking}/move",
        access=Access.STUDENT,
        handler=student.move,
        summary="Move a booking to another mock exam of its type, seat for seat",
        body=asks.MoveBody,
        answer=shapes.Booked,
        errors=(
            *(error for error in _SEAT_ERRORS if error is not errors.InsufficientCredits),
            errors.BookingNotFound,
            errors.BookingNotLive,
            errors.CancellationClosed,
            errors.MockTypeMismatch,
        ),
        idempotent=True,
        tag="bookings",
    ),
)

_CREDITS = tuple(
    route
    for prefix in ("/api", "")
    for route in (
        Route(
            method="GET",
            path=f"{prefix}/auth/credits",
            access=Access.STUDENT,
            handler=student.credits_of_student,
            summary="All balances of the student",
            query=asks.CreditsQuery,
            answer=shapes.Credits,
            errors=_MISS_ERRORS,
            tag="credits",
        ),
        Route(
            method="GET",
            path=f"{prefix}/auth/usage-history",
            access=Access.STUDENT,
            handler=student.usage,
            summary="The student's ledger, newest first",
            query=asks.UsageHistoryQuery,
            answer=shapes.UsageHistory,
            errors=(errors.StudentNotFound,),
            tag="credits",
        ),
    )
)

_MIRROR_JOBS = ("sync-supabase", "warm-contact-credits-cache", "batch-sync-hubspot", "reconcile")
_CRON = tuple(
    Route(
        method="GET",
        path=f"/api/admin/cron/{job}",
        access=Access.CRON,
        handler=operations.cron,
        summary=summary,
        query=asks.CronQuery,
        answer=shapes.JobRun,
        errors=(errors.CrmBusy, errors.CrmUnavailable) if job in _MIRROR_JOBS else (),
        tag="cron",
    )
    for job, summary in (
        ("sync-supabase", "Bring in everything from HubSpot"),
        ("activate-scheduled-exams", "Record the mock exams whose opening minute has passed"),
        ("warm-contact-credits-cache", "Read from HubSpot what has changed there"),
        ("batch-sync-hubspot", "Tell HubSpot what has changed here"),
        ("expire-holds", "Give back credits that were set aside and not used in time"),
        ("reconcile", "Compare everything with HubSpot, and queue what it was not told"),
    )
)


_WEBHOOKS = (
    Route(
        method="POST",
        path="/api/webhooks/hubspot",
        access=Access.HUBSPOT,
        handler=webhooks.hubspot_events,
        summary="What happened in HubSpot, told by HubSpot itself",
        raw_body_limit_bytes=webhooks.LARGEST_DELIVERY_BYTES,
        answer=shapes.EventsReceived,
        allowed_observing=True,
        tag="webhooks",
    ),
    Route(
        method="POST",
        path="/api/webhooks/stripe",
        access=Access.STRIPE,
        handler=webhooks.stripe_event,
        summary="What was paid, refunded or disputed, told by Stripe itself",
        raw_body_limit_bytes=webhooks.LARGEST_DELIVERY_BYTES,
        answer=shapes.PaymentTaken,
        errors=(errors.ContactNotFound, errors.EntryNotFound, errors.AmbiguousContact, errors.LockTimeout),
        tag="webhooks",
    ),
)


def _operation(
    path: str, access: Access, handler: Handler, summary: str, *, media_type: str | None = None
) -> Route:
    return Route(
        method="GET",
        path=path,
        access=access,
        handler=handler,
        summary=summary,
        answer=shapes.Status if media_type is None else None,
        errors=(errors.DatabaseUnavailable,) if path == "/readyz" else (),
        tag="operations",
        media_type=media_type or "application/json",
    )


_OPERATIONS = (
    _operation("/healthz", Access.PUBLIC, operations.healthz, "The process runs"),
    _operation("/readyz", Access.PUBLIC, operations.readyz, "The process can do its work"),
    _operation(
        "/metrics", Access.METRICS, operations.metrics, "Figures for Prometheus", media_type="text/plain"
    ),
    _operation(
        "/openapi.json", Access.DOCS, operations.openapi, "This document", media_type="application/json"
    ),
    _operation("/docs", Access.DOCS, operations.docs, "This document as a page", media_type="text/html"),
)

ROUTES: tuple[Route, ...] = (
    *_SIGN_IN,
    *_MOCK_EXAMS,
    *_BOOKINGS,
    *_CREDITS,
    *ACTION_ROUTES,
    *ADMIN_ROUTES,
    *_CRON,
    *_WEBHOOKS,
    *_OPERATIONS,
)
