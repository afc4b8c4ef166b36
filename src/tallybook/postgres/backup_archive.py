"""A backup as a file: a ZIP archive of one text per table, and a manifest with the checksum of each."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from tallybook.domain.errors import SetupError

FORMAT = 1
_MANIFEST = "manifest.json"
_CHUNK = 1 << 18
# Between speed and size: the rest of the levels save little on such texts.
_LEVEL = 3


class TableCopy(msgspec.Struct, frozen=True):
    """One table in the archive, in PostgreSQL's COPY text format."""

    columns: tuple[str, ...]
    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup contains and where it comes from. `sequences`: (last value, whether it was given out)."""

    made_at: str
    release: str
    server: str
    migrations: tuple[str, ...]
    tables: dict[str, TableCopy]
    sequences: dict[str, tuple[int, bool]]
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(each.rows for each in self.tables.values())


class _Digested:
    """Counts in the checksum what passes through a member of the archive."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._digest.update(data)
        self._member.write(data)

    def chunks(self) -> Iterator[bytes]:
        while data := self._member.read(_CHUNK):
            self._digest.update(data)
            yield data


class ArchiveWriter:
    """An archive that is being written."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    @contextmanager
    def table(self, name: str) -> Iterator[_Digested]:
        """Takes the text of one table; its size need not be known."""
        with self._archive.open(_member(name), "w", force_zip64=True) as member:
            yield _Digested(member)

    def finish(self, manifest: Manifest) -> None:
        """Adds the manifest, without which an archive is no backup."""
        self._archive.writestr(_MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))


class ArchiveReader:
    """A backup that is being read."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self._archive = archive
        self.manifest = manifest

    def table(self, name: str) -> Iterator[bytes]:
        """The text of one table. Raises SetupError at its end when it is not what was written."""
        try:
            with self._archive.open(_member(name)) as member:
                digested = _Digested(member)
                yield from digested.chunks()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError) as error:
            raise damaged(f"{name} cannot be read") from error
        if digested.sha256 != self.manifest.tables[name].sha256:
            raise damaged(f"the checksum of {name} is another one")


@contextmanager
def written_archive(file: Path) -> Iterator[ArchiveWriter]:
    """A new archive, readable for its owner only; it gets its name when it is complete. Raises SetupError."""
    partial = file.with_name(f".{file.name}.partial")
    if file.exists():
        raise SetupError(f"{file} exists already.", hint="Choose another name; a backup never replaces one.")
    try:
        number = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(number, "w+b") as opened:
            # One left behind by a killed run may have had other rights.
            os.fchmod(number, 0o600)
            with zipfile.ZipFile(
                opened, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL, allowZip64=True
            ) as archive:
                yield ArchiveWriter(archive)
            opened.flush()
            os.fsync(number)
        partial.rename(file)
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def read_archive(file: Path) -> Iterator[ArchiveReader]:
    """An archive with a manifest this release understands. Raises SetupError."""
    try:
        archive = zipfile.ZipFile(file)
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise damaged(f"{file} is no archive, or cut off") from error
    with archive:
        try:
            manifest = msgspec.json.decode(archive.read(_MANIFEST), type=Manifest)
        except (KeyError, msgspec.DecodeError, zipfile.BadZipFile, zlib.error) as error:
            raise damaged(f"{file} has no readable manifest") from error
        if manifest.format != FORMAT:
            raise SetupError(
                f"{file} has format {manifest.format}; this release reads {FORMAT}.",
                hint=f"Restore it with Tallybook {manifest.release}.",
            )
        yield ArchiveReader(archive, manifest)


def damaged(what: str) -> SetupError:
    """The error for a file that is not what a backup wrote."""
    return SetupError(f"This is no complete backup: {what}.", hint="Nothing was changed. Take another file.")


def _member(table: str) -> str:
    return f"tables/{table}.copy"
