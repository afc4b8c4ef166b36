"""Uploads that cost credits, with FastAPI."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, UploadFile

from tallybook.client import Tallybook, requires_credits

tallybook = Tallybook(os.environ["TALLYBOOK_URL"], os.environ["TALLYBOOK_KEY"])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Closes the connections with the server."""
    yield
    await tallybook.aclose()


app = FastAPI(lifespan=lifespan)


def signed_in(x_user: Annotated[str, Header()]) -> str:
    """Who calls; your own sign-in goes here."""
    return x_user


@app.post("/uploads", status_code=201)
@requires_credits("audio_upload", client=tallybook, contact=lambda user, **_: f"email:{user}")
async def upload(user: Annotated[str, Depends(signed_in)], file: UploadFile) -> dict[str, int]:
    """Takes the file. An exception, or an answer of status 400 and above, costs nothing."""
    content = await file.read()
    if not content:
        raise HTTPException(400, "the file is empty")
    if content.startswith(b"broken"):
        raise ValueError("this file cannot be read")
    return {"bytes": len(content)}


@app.get("/prices")
async def prices() -> dict[str, int]:
    """For price tags: no front end has to know what things cost."""
    return dict(await tallybook.costs())
