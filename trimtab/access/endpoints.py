"""Endpoints of the administrators: `/admin/keys` and `/admin/teams`. A virtual key opens none of them."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from trimtab.access.described import (
    KeyChange,
    KeyIn,
    RotateIn,
    TeamChange,
    TeamIn,
    change_key,
    change_team,
    new_key,
    new_team,
)
from trimtab.access.gate import KeyGate, credential
from trimtab.access.refusals import away, not_admitted
from trimtab.access.secrets import check_strong, digest_of
from trimtab.access.usage import usage
from trimtab.edge import Edge
from trimtab.errors import BadRequest, BadSettings
from trimtab.http import Route, answered, in_thread, json_response
from trimtab.options import checked
from trimtab.sharing.log import Unreachable

Answer = Callable[[Request], Awaitable[Response]]

_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_PAGE: Final = 100


class Administration:
    """The group; while it is served, so is the gate. Raises BadSettings for an administrators' key that could be guessed."""

    def __init__(self, edge: Edge, gate: KeyGate, environ: Mapping[str, str] = os.environ) -> None:
        self._edge = edge
        self._gate = gate
        self._keys = gate.keys
        self._key_env = edge.trimtab.settings.admin_key_env
        self._secret = environ.get(self._key_env, "") if self._key_env is not None else ""
        if self._secret:
            try:
                check_strong(self._secret, "admin_key_env")
            except BadRequest as error:
                raise BadSettings(f"the value of {self._key_env} is weak: {error}") from None

    def routes(self) -> tuple[Route, ...]:
        rows: tuple[tuple[str, str, Answer, str, type[BaseModel] | None], ...] = (
            ("POST", "/admin/keys", self._create, "Make a virtual key; its secret is shown this once", KeyIn),
            ("GET", "/admin/keys", self._list, "The virtual keys", None),
            ("GET", "/admin/keys/{name}", self._get, "A virtual key, and what it has spent", None),
            ("PATCH", "/admin/keys/{name}", self._change, "Change a virtual key", KeyChange),
            ("POST", "/admin/keys/{name}/rotate", self._rotate, "Give a virtual key a new secret", RotateIn),
            ("DELETE", "/admin/keys/{name}", self._delete, "Delete a virtual key", None),
            ("POST", "/admin/teams", self._create_team, "Make a team", TeamIn),
            ("GET", "/admin/teams", self._list_teams, "The teams", None),
            ("GET", "/admin/teams/{name}", self._get_team, "A team, and what it has spent", None),
            ("PATCH", "/admin/teams/{name}", self._change_team, "Change a team", TeamChange),
            ("DELETE", "/admin/teams/{name}", self._delete_team, "Delete a team that has no keys", None),
        )
        return tuple(
            Route(method, path, self._asked(answer), summary, _operation(path, body))
            for method, path, answer, summary, body in rows
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        listeners = self._edge.trimtab.listeners
        await in_thread(self._keys.create_tables)
        async with self._gate.serving():
            listeners.append(self._gate.listen)
            try:
                yield
            finally:
                listeners.remove(self._gate.listen)

    def _asked(self, answer: Answer) -> Answer:
        async def endpoint(request: Request) -> Response:
            async def admitted() -> Response:
                self._admit(request)
                try:
                    return await answer(request)
                except (SQLAlchemyError, Unreachable):  # its text may hold what was written
                    raise away() from None

            return await answered(admitted)

        return endpoint

    def _admit(self, request: Request) -> None:
        if not self._secret:
            reason = "the admin API is closed: admin_key_env in the settings names the variable that holds its key"
            raise BadRequest(None, reason, "admin_closed", status=403)
        given = credential(request.headers) or ""
        if not hmac.compare_digest(digest_of(given), digest_of(self._secret)):
            raise not_admitted(f"the admin API wants its own key: the value of {self._key_env}")

    async def _body(self, request: Request, model: Any) -> Any:
        return checked(model, await self._edge.body(request), None)

    # --- keys ------------------------------------------------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        asked: KeyIn = await self._body(request, KeyIn)
        key, secret = await in_thread(lambda: new_key(self._keys, asked, time.time()))
        self._gate.forget()
        return _secret(key.to_dict(), secret, 201)

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        team, after = query.get("team"), _text(query.get("after", ""))
        found = await in_thread(lambda: self._keys.listed(None if team is None else _text(team), after, _PAGE + 1))
        return _page([each.to_dict() for each in found])

    async def _get(self, request: Request) -> Response:
        name = _name(request)

        def read() -> dict[str, Any]:
            key = self._keys.find(name)
            rows = usage(self._gate.counters, self._gate.past, "key", key.name, key.limits, time.time())
            return {**key.to_dict(), "usage": rows}

        return json_response(await in_thread(read))

    async def _change(self, request: Request) -> Response:
        name, asked = _name(request), await self._body(request, KeyChange)
        key = await in_thread(lambda: change_key(self._keys, name, asked, time.time()))
        self._gate.forget()
        return json_response(key.to_dict())

    async def _rotate(self, request: Request) -> Response:
        name = _name(request)
        body: dict[str, Any] = {}
        if request.headers.get("content-type") is not None:
            body = await self._edge.body(request)
        asked = checked(RotateIn, body, None)
        secret = await in_thread(lambda: self._keys.rotate(self._keys.find(name), time.time(), asked.grace_s))
        self._gate.forget()
        key = await in_thread(lambda: self._keys.find(name))
        return _secret(key.to_dict(), secret, 200)

    async def _delete(self, request: Request) -> Response:
        name = _name(request)
        await in_thread(lambda: self._keys.delete(self._keys.find(name)))
        self._gate.forget()
        return json_response({"object": "key", "name": name, "deleted": True})

    # --- teams -----------------------------------------------------------------------------------------------------------

    async def _create_team(self, request: Request) -> Response:
        asked: TeamIn = await self._body(request, TeamIn)
        team = await in_thread(lambda: new_team(self._keys, asked, time.time()))
        return json_response(team.to_dict(), 201)

    async def _list_teams(self, request: Request) -> Response:
        after = _text(request.query_params.get("after", ""))
        found = await in_thread(lambda: self._keys.teams(after, _PAGE + 1))
        return _page([each.to_dict() for each in found])

    async def _get_team(self, request: Request) -> Response:
        name = _name(request)

        def read() -> dict[str, Any]:
            team = self._keys.team(name)
            rows = usage(self._gate.counters, self._gate.past, "team", team.name, team.limits, time.time())
            return {**team.to_dict(), "usage": rows}

        return json_response(await in_thread(read))

    async def _change_team(self, request: Request) -> Response:
        name, asked = _name(request), await self._body(request, TeamChange)
        team = await in_thread(lambda: change_team(self._keys, name, asked))
        self._gate.forget()
        return json_response(team.to_dict())

    async def _delete_team(self, request: Request) -> Response:
        name = _name(request)
        await in_thread(lambda: self._keys.delete_team(self._keys.team(name)))
        self._gate.forget()
        return json_response({"object": "team", "name": name, "deleted": True})


def _name(request: Request) -> str:
    return _text(request.path_params["name"])


def _text(given: str) -> str:
    """As a database takes it: PostgreSQL has no text with a zero in it, and nothing with half a surrogate pair."""
    return given.replace("\0", "").encode("utf-8", "replace").decode()[:200]


def _secret(told: dict[str, Any], secret: str, status: int) -> Response:
    response = json_response({**told, "key": secret}, status)
    response.headers["cache-control"] = "no-store"
    return response


def _page(rows: list[dict[str, Any]]) -> Response:
    listed = rows[:_PAGE]
    return json_response({"object": "list", "data": listed, "has_more": len(rows) > _PAGE})


def _operation(path: str, body: type[BaseModel] | None) -> dict[str, Any]:
    operation: dict[str, Any] = {"parameters": [_NAME]} if "{name}" in path else {}
    if body is not None:
        content = {"application/json": {"schema": body.model_json_schema()}}
        operation["requestBody"] = {"content": content, "required": body is not RotateIn}
    return operation
