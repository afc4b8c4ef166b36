"""The same credit check in each framework; `build(name)` imports only the one it is asked for."""
# ruff: noqa: PLC0415 - a server that imported its rivals would not be measured alone.

import time
import uuid

from around import Around, caller_of, check, count, decode, encode, lifespan, pool, write_log_line
from contenders_names import NAMES

PATH = "/api/mock-exams/validate-credits"


def build(name):
    builders = (bare, bare_full, starlette, starlette_in_fastapi, blacksheep, litestar, fastapi)
    return dict(zip(NAMES, builders, strict=True))[name]()


def bare():
    """Nothing around: the least this server, pool and SQL can cost."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        asked = decode((await receive())["body"])
        body = encode(await check(asked.student_id, asked.email, asked.mock_type))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def _lifespan(receive, send):
    await receive()
    await pool.open()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await pool.close()
    await send({"type": "lifespan.shutdown.complete"})


def bare_full():
    return Around(bare())


def _starlette_route():
    from starlette.responses import Response
    from starlette.routing import Route

    async def validate_credits(request):
        asked = decode(await request.body())
        answer = await check(asked.student_id, asked.email, asked.mock_type)
        return Response(encode(answer), media_type="application/json")

    return Route(PATH, validate_credits, methods=["POST"])


def starlette():
    from starlette.applications import Starlette

    return Around(Starlette(routes=[_starlette_route()], lifespan=lifespan))


def starlette_in_fastapi():
    from fastapi import FastAPI

    return Around(FastAPI(routes=[_starlette_route()], lifespan=lifespan))


def blacksheep():
    from blacksheep import Application, Content, Request, Response

    app = Application()

    async def validate_credits(request: Request) -> Response:
        asked = decode(await request.read())
        answer = await check(asked.student_id, asked.email, asked.mock_type)
        return Response(200, content=Content(b"application/json", encode(answer)))

    app.router.add_post(PATH, validate_credits)

    @app.lifespan
    async def connections():
        async with lifespan():
            yield

    return Around(app)


def litestar():
    from around import CreditCheck
    from litestar import Litestar, post

    @post(PATH, status_code=200)
    async def validate_credits(data: CreditCheck) -> dict[str, object]:
        return await check(data.student_id, data.email, data.mock_type)

    return Around(Litestar([validate_credits], lifespan=[lifespan]))


def fastapi():
    """As its tutorial teaches it: pydantic models, a dependency for the caller, an http middleware."""
    from typing import Annotated

    from fastapi import Depends, FastAPI, Header, HTTPException, Request
    from pydantic import BaseModel, ConfigDict

    class Asked(BaseModel):
        model_config = ConfigDict(extra="forbid")
        student_id: str
        email: str
        mock_type: str

    class Breakdown(BaseModel):
        specific_credits: int
        shared_credits: int

    class Credits(BaseModel):
        eligible: bool
        contact_id: str
        student_name: str
        available_credits: int
        credit_breakdown: Breakdown
        mock_type: str
        source: str

    class Answer(BaseModel):
        success: bool
        data: Credits

    app = FastAPI(lifespan=lifespan)

    async def caller(request: Request, authorization: Annotated[str, Header()]) -> str:
        found = caller_of(authorization.encode())
        if found is None:
            raise HTTPException(401)
        request.state.caller = found
        return found

    @app.middleware("http")
    async def around(request: Request, call_next):
        began_at, request_id = time.perf_counter(), uuid.uuid4().hex
        response = await call_next(request)
        response.headers["x-request-id"] = request_id
        seconds = time.perf_counter() - began_at
        write_log_line(request_id, request.state.caller, request.url.path, response.status_code, seconds)
        count(request.url.path, response.status_code, seconds)
        return response

    @app.post(PATH)
    async def validate_credits(asked: Asked, _caller: Annotated[str, Depends(caller)]) -> Answer:
        return await check(asked.student_id, asked.email, asked.mock_type)

    return app
