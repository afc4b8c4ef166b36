"""The contenders, in the order of the table."""

NAMES = (
    "bare",
    "bare, everything on",
    "Starlette + msgspec",
    "the same inside FastAPI",
    "BlackSheep + msgspec",
    "Litestar",
    "FastAPI as usual",
)
