"""Uploads that cost credits, with Flask."""

import os

from flask import Flask, abort, jsonify, request

from tallybook.client import BlockingTallybook, requires_credits

app = Flask(__name__)
tallybook = BlockingTallybook(os.environ["TALLYBOOK_URL"], os.environ["TALLYBOOK_KEY"])


def user() -> str:
    """Who pays; your own sign-in goes here."""
    address = request.headers.get("X-User") or abort(401)
    return f"email:{address}"


@app.post("/uploads")
@requires_credits("audio_upload", client=tallybook, contact=user)
def upload():
    """Takes the file. An exception, or an answer of status 400 and above, costs nothing."""
    file = request.files.get("file")
    if file is None:
        return jsonify(error="no file"), 400
    content = file.read()
    if content.startswith(b"broken"):
        raise ValueError("this file cannot be read")
    return jsonify(bytes=len(content)), 201


@app.get("/prices")
def prices():
    """For price tags: no front end has to know what things cost."""
    return jsonify(tallybook.costs())
