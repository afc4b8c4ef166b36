"""An application whose work takes until it is told to end; for killing it in the middle."""

import asyncio
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tallybook.client import Tallybook, requires_credits

tallybook = Tallybook(os.environ["TALLYBOOK_URL"], os.environ["TALLYBOOK_KEY"], deadline_s=3)
SIGNS = Path(os.environ["SIGNS"])


@requires_credits(
    "audio_upload",
    client=tallybook,
    contact=lambda request: f"email:{request.query_params['user']}",
    expires_in_s=5,
)
async def work(request):
    (SIGNS / "working").touch()
    while not (SIGNS / "finish").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    return JSONResponse({"done": True})


app = Starlette(routes=[Route("/work", work, methods=["POST"])])
