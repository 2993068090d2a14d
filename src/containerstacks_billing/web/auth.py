"""Authentication: API token, ADMIN_TOKEN or a JWT of the host application.

    csb_…           a token made by `token create`; the database has its hash
    ADMIN_TOKEN     the configured one
    a.b.c           a JWT of the host application: HS256 with JWT_SECRET, and its user is an admin now

A token has scopes: `read` shows runs and the fleet, `finance` customers and their money, `decide` releases what is
held. The other two kinds have all of them.

An invalid bearer gets 401, a host user who is no admin or a token without the scope 403, and an address that failed
ten times within a minute 429 for every further failure; a valid bearer always gets in. A missing bearer is no attempt.
A refusal never says which kind of bearer failed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import jwt
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool

from containerstacks_billing.tokens import store as tokens
from containerstacks_billing.tokens.model import DECIDE, FINANCE, READ, SCOPES, hash_of, is_token, same
from containerstacks_billing.web.context import Context, InContext, context_of
from containerstacks_billing.web.problems import Refused

REALM = 'Bearer realm="containerstacks-billing"'
LONGEST_BEARER = 4096
_CLOCK_LEEWAY_SECONDS = 30
_ALGORITHM = "HS256"
_FULL_KEY_BYTES = 32

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="adminToken",
    description="A token of `containerstacks-billing token create`, ADMIN_TOKEN, or a JWT of the host application.",
)


@dataclass(frozen=True, slots=True)
class Admin:
    """An authenticated admin; `name` is for logs and decisions."""

    name: str
    scopes: frozenset[str] = SCOPES


class NotAnAdmin(Exception):
    """The bearer is valid and its user is not an admin."""


def recognise(context: Context, bearer: str) -> Admin | None:
    """Return the admin of a bearer; None when it is invalid. Raises NotAnAdmin, and BillingError without a database."""
    if not bearer or len(bearer) > LONGEST_BEARER:
        return None
    configured = context.settings.admin_token
    if configured is not None and same(hash_of(bearer), hash_of(configured.get_secret_value())):
        return Admin("ADMIN_TOKEN")
    if is_token(bearer):
        return _by_token(context, bearer)
    if context.settings.jwt_secret is not None and bearer.count(".") == 2:
        return _by_host(context, bearer, context.settings.jwt_secret)
    return None


def _by_token(context: Context, bearer: str) -> Admin | None:
    hashed = hash_of(bearer)
    with context.pool.reading() as connection:
        found = tokens.find(connection, hashed)
    if found is None or not same(bytes(found.token_hash), hashed):
        return None
    if found.note_use:
        with context.pool.writing() as connection:
            tokens.note_use(connection, found)
    return Admin(f"token {found.name}", frozenset(found.scopes))


def _by_host(context: Context, bearer: str, secret: SecretStr) -> Admin | None:
    # The length of the secret is the host's decision. HMAC fills a short key up with zeros anyway (RFC 2104), so this
    # changes no signature; it spares every request a warning.
    key = secret.get_secret_value().encode().ljust(_FULL_KEY_BYTES, b"\0")
    try:
        claims = jwt.decode(
            bearer,
            key,
            algorithms=[_ALGORITHM],
            leeway=_CLOCK_LEEWAY_SECONDS,
            # The host's tokens name no audience of ours. One that never expires would outlive every dismissal.
            options={
                "require": ["exp"],
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
        user = UUID(str(claims["userId"]))
    except (jwt.PyJWTError, KeyError, ValueError, TypeError, RecursionError):
        return None
    with context.pool.reading() as connection:
        role = tokens.role_of_user(connection, user)
    if role is None:
        return None
    if role != "admin":
        raise NotAnAdmin
    return Admin(f"user {user}")


def address_of(request: Request) -> str:
    """Return the client address of a request."""
    return request.client.host if request.client else "unknown"


def admit(context: Context, request: Request, bearer: str) -> Admin:
    """Return the admin of a bearer, counting failures; raises Refused.

    A valid bearer is accepted from every address: behind one NAT or proxy the failures of a stranger must not lock out
    the operator. Failures beyond the limit are answered 429 and neither logged nor counted again, and looked up one at
    a time.
    """
    address = address_of(request)
    wait = context.attempts.retry_after_seconds(address)
    try:
        admin = recognise(context, bearer) if wait <= 0 else _recognise_one(context, bearer)
    except NotAnAdmin:
        _note(context, address, "no admin")
        raise Refused(403, "This user is not an admin.") from None
    if admin is None:
        if wait > 0:
            headers = {"Retry-After": str(int(wait) + 1)}
            raise Refused(429, "Too many failed attempts from this address.", headers)
        _note(context, address, "the token is not valid")
        raise Refused(401, "The token is not valid.", {"WWW-Authenticate": f'{REALM}, error="invalid_token"'})
    return admin


def _recognise_one(context: Context, bearer: str) -> Admin | None:
    """Return the admin of a bearer, unless another look-up beyond the limit is in progress."""
    if not context.attempts.lookup.acquire(timeout=1.0):
        return None
    try:
        return recognise(context, bearer)
    finally:
        context.attempts.lookup.release()


def _note(context: Context, address: str, why: str) -> None:
    context.attempts.note(address)
    context.refusals.note(address, why)


def require_admin(
    request: Request,
    context: InContext,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Admin:
    """Return the admin of a request; dependency of every route that shows figures. Raises Refused."""
    if credentials is None:
        raise Refused(401, "An admin token is needed.", {"WWW-Authenticate": REALM})
    return admit(context, request, credentials.credentials)


def demand(admin: Admin, scope: str) -> None:
    """Raise Refused when an admin's token lacks a scope."""
    if scope not in admin.scopes:
        raise Refused(403, f"This token lacks the scope {scope}.")


def _with_scope(scope: str) -> Callable[..., Admin]:
    def require_scope(admin: Annotated[Admin, Depends(require_admin)]) -> Admin:
        demand(admin, scope)
        return admin

    return require_scope


# For runs and the fleet; for customers and their money; for decisions.
AsAdmin = Annotated[Admin, Depends(_with_scope(READ))]
AsFinance = Annotated[Admin, Depends(_with_scope(FINANCE))]
AsDecider = Annotated[Admin, Depends(_with_scope(DECIDE))]


class DeciderRoute(APIRoute):
    """A route for decisions that authenticates before it reads the body, whatever that is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route behind the authentication."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            credentials = await _bearer(request)
            admin = await run_in_threadpool(require_admin, request, context_of(request), credentials)
            demand(admin, DECIDE)
            return await handle(request)

        return guarded
