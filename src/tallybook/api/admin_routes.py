"""The addresses for staff. What each role may do is in `domain/staff.py`."""

from __future__ import annotations

from tallybook.api import action_shapes, admin_shapes, answer_shapes
from tallybook.api import admin_handlers as handlers
from tallybook.api import admin_requests as asks
from tallybook.api.callers import Access
from tallybook.api.route import Route
from tallybook.domain import errors
from tallybook.domain.staff import Permission

_RESOLVE_ERRORS = (
    errors.NotFound,
    errors.ConfirmationStale,
    errors.BalanceTooLow,
    errors.InsufficientCredits,
    errors.ExamFull,
    errors.DuplicateBooking,
    errors.TimeConflict,
    errors.BookingNotLive,
    errors.CapacityBelowBooked,
    errors.LockTimeout,
)

_SIGN_IN = (
    Route(
        method="POST",
        path="/api/admin/login",
        access=Access.PUBLIC,
        handler=handlers.login,
        summary="Sign in as staff with a local account",
        body=asks.StaffLoginBody,
        answer=admin_shapes.StaffSession,
        errors=(errors.LoginFailed,),
        allowed_observing=True,
        tag="staff",
    ),
    Route(
        method="POST",
        path="/api/admin/logout",
        access=Access.STAFF,
        handler=handlers.logout,
        summary="Sign out everywhere",
        body=asks.NoBody,
        answer=answer_shapes.Nothing,
        allowed_observing=True,
        tag="staff",
    ),
)

_SYNC = (
    Route(
        method="GET",
        path="/api/admin/sync/status",
        access=Access.STAFF,
        permission=Permission.SEE_MIRROR,
        handler=handlers.sync_status,
        summary="How far both sides are behind each other, and what waits for a person",
        answer=admin_shapes.SyncStatus,
        tag="mirror",
    ),
    Route(
        method="GET",
        path="/api/admin/sync/conflicts",
        access=Access.STAFF,
        permission=Permission.SEE_MIRROR,
        handler=handlers.conflicts,
        summary="What could not be merged",
        query=asks.ConflictsQuery,
        answer=admin_shapes.SyncConflicts,
        tag="mirror",
    ),
    Route(
        method="POST",
        path="/api/admin/sync/conflicts/{conflict}/resolve",
        access=Access.STAFF,
        permission=Permission.RESOLVE_CONFLICT,
        handler=handlers.resolve,
        summary="Settle a conflict with our value, theirs or a third",
        body=asks.ResolveBody,
        answer=admin_shapes.SyncConflict,
        errors=_RESOLVE_ERRORS,
        tag="mirror",
    ),
    Route(
        method="GET",
        path="/api/admin/sync/dead-letters",
        access=Access.STAFF,
        permission=Permission.SEE_MIRROR,
        handler=handlers.dead_letters,
        summary="What HubSpot refuses, or what could not be read from it",
        query=asks.LettersQuery,
        answer=admin_shapes.DeadLetters,
        tag="mirror",
    ),
    Route(
        method="POST",
        path="/api/admin/sync/dead-letters/{type}/{letter}/retry",
        access=Access.STAFF,
        permission=Permission.RETRY_LETTER,
        handler=handlers.retry,
        summary="Try a dead letter again",
        body=asks.NoBody,
        answer=admin_shapes.Retried,
        errors=(errors.NotFound, errors.LockTimeout),
        allowed_observing=True,
        tag="mirror",
    ),
    Route(
        method="POST",
        path="/api/admin/sync/dead-letters/{type}/{letter}/discard",
        access=Access.STAFF,
        permission=Permission.DISCARD_LETTER,
        handler=handlers.discard,
        summary="Give a dead letter up: HubSpot keeps what it shows until the object changes again",
        body=asks.DiscardBody,
        answer=admin_shapes.Discarded,
        errors=(errors.NotFound, errors.LockTimeout),
        tag="mirror",
    ),
    Route(
        method="POST",
        path="/api/admin/sync/retry",
        access=Access.STAFF,
        permission=Permission.RETRY_LETTER,
        handler=handlers.retry_all,
        summary="Try all dead letters again",
        body=asks.NoBody,
        answer=admin_shapes.Retried,
        errors=(errors.LockTimeout,),
        allowed_observing=True,
        tag="mirror",
    ),
    Route(
        method="POST",
        path="/api/admin/sync/lanes/{lane}/resume",
        access=Access.STAFF,
        permission=Permission.RESUME_LANE,
        handler=handlers.resume,
        summary="Let a paused lane go on at once",
        body=asks.NoBody,
        answer=admin_shapes.Resumed,
        errors=(errors.NotFound, errors.LockTimeout),
        allowed_observing=True,
        tag="mirror",
    ),
    Route(
        method="DELETE",
        path="/api/admin/cache/contact/{student_id}",
        access=Access.STAFF,
        permission=Permission.REFRESH_CONTACT,
        handler=handlers.refresh_contact,
        summary="Read a contact again from HubSpot by merging; nothing spent here is lost",
        body=asks.NoBody,
        answer=action_shapes.ContactCredits,
        errors=(
            errors.ContactNotFound,
            errors.AmbiguousContact,
            errors.CrmBusy,
            errors.CrmUnavailable,
            errors.LockTimeout,
        ),
        allowed_observing=True,
        tag="mirror",
    ),
)

ADMIN_ROUTES: tuple[Route, ...] = (*_SIGN_IN, *_SYNC)
