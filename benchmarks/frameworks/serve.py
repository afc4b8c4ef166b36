"""One contender under uvicorn: says its port, then serves until it is terminated."""

import socket
import sys

import uvicorn
from contenders import build

listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", 0))
listening.listen(128)
print(listening.getsockname()[1], flush=True)
config = uvicorn.Config(
    build(sys.argv[1]), loop="uvloop", http="httptools", lifespan="on", log_level="warning", access_log=False
)
uvicorn.Server(config).run(sockets=[listening])
