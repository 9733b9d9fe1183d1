"""What a view asks for: who is signed in, and which institution they look at."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from console.access import User
from console.institutions import Institution, NotKnown
from console.settings import Role
from console.templating import is_for

#: The session cookie's name; with TLS the prefix makes browsers insist on Secure and on our host.
PLAIN_COOKIE = "countersign_session"
SECURE_COOKIE = "__Host-countersign_session"


class SignInNeeded(Exception):
    """Nobody is signed in."""


class Forbidden(Exception):
    """The person's role doesn't include this."""


def cookie_name(request: Request) -> str:
    """The session cookie's name under these settings."""
    return SECURE_COOKIE if request.app.state.console.settings.secure else PLAIN_COOKIE


def client_address(request: Request) -> str:
    """The peer's address, for the trail."""
    return request.client.host if request.client else ""


def signed_in(request: Request) -> User:
    """Who is signed in. Not async: it reads the session file, so it runs in a thread."""
    console = request.app.state.console
    # What an open overview asks for by itself keeps nobody signed in.
    by_itself = request.url.path.endswith("/live") or is_for(request, "figures")
    cookie = request.cookies.get(cookie_name(request))
    user: User | None = console.access.user_of(cookie, active=not by_itself)
    if user is None:
        raise SignInNeeded
    mine = [item for item in console.institutions if item.member_id in user.members]
    request.state.page = {"user": user, "institutions": mine}
    return user


def administrator(user: Annotated[User, Depends(signed_in)]) -> User:
    """Who is signed in, if they are an administrator."""
    if not user.may(Role.ADMIN):
        raise Forbidden
    return user


def chosen_institution(
    request: Request, member_id: str, user: Annotated[User, Depends(signed_in)]
) -> Institution:
    """The institution in the address. One that this person may not see is one that isn't there."""
    institution: Institution | None = request.app.state.console.institutions.get(member_id)
    if institution is None or member_id not in user.members:
        raise NotKnown
    request.state.page["institution"] = institution
    return institution


async def names_of(request: Request, institution: Institution) -> dict[str, str]:
    """Members' names by id: as this console calls them, else as the node's directory does."""
    mine = {item.member_id: item.name for item in request.state.page["institutions"]}
    return await institution.names() | mine


SignedIn = Annotated[User, Depends(signed_in)]
Administrator = Annotated[User, Depends(administrator)]
Chosen = Annotated[Institution, Depends(chosen_institution)]
