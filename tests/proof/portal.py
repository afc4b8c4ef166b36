"""The portal as people and an auditor see it: typing into records, and reading everything back."""

from dataclasses import dataclass

import httpx

AUDITOR = "pat-of-the-auditor"
TYPES = {"contact": "contacts", "mock_exam": "2-50158913", "booking": "2-50158943"}


class Changed(Exception):
    """Somebody wrote the value between our look and our typing; nothing was typed."""


@dataclass
class Portal:
    """The back door, and the front door with a token of its own (so with a limit of its own)."""

    url: str
    http: httpx.AsyncClient

    @classmethod
    def at(cls, url):
        # Given up before the portal gives them up: an edit on a connection that just ended would be in doubt.
        limits = httpx.Limits(keepalive_expiry=1.0)
        return cls(url, httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False, limits=limits))

    async def record(self, kind, hubspot_id):
        """A record with values, histories (newest first) and associations; None when there is none."""
        answer = await self.http.get(f"/_simulator/records/{TYPES[kind]}/{hubspot_id}")
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()

    async def type(self, kind, hubspot_id, properties, *, expect, user="12345"):
        """A person types; raises Changed when what they saw is no longer there. Gives the record after it."""
        body = {
            "object_type": TYPES[kind],
            "id": str(hubspot_id),
            "properties": properties,
            "user": user,
            "expect": {name: value or "" for name, value in expect.items()},
        }
        answer = await self.http.post("/_simulator/edits", json=body)
        if answer.status_code == 409:
            raise Changed
        answer.raise_for_status()
        return answer.json()

    async def archive(self, hubspot_id, *, archived):
        """A person throws a contact away, or takes it back."""
        body = {"object_type": "contacts", "id": hubspot_id, "archived": archived}
        (await self.http.post("/_simulator/edits", json=body)).raise_for_status()

    async def create(self, kind, properties):
        """A person makes a record."""
        body = {"object_type": TYPES[kind], "properties": properties}
        answer = await self.http.post("/_simulator/edits", json=body)
        answer.raise_for_status()
        return answer.json()

    async def door(self, name, **body):
        """One call at the back door."""
        answer = await self.http.post(f"/_simulator/{name}", json=body)
        answer.raise_for_status()
        return answer.json()

    async def stats(self):
        return (await self.http.get("/_simulator/stats")).json()

    async def mend(self):
        """No fault waits any more."""
        await self.http.delete("/_simulator/faults")

    async def faults_waiting(self):
        return (await self.http.get("/_simulator/faults")).json()["waiting"]

    async def everything(self, kind, properties=()):
        """All records of a type that are not archived: {id: {"properties", "updatedAt"}}."""
        found, after = {}, None
        while True:
            params = {"limit": "100", "properties": ",".join(properties)}
            if after is not None:
                params["after"] = after
            answer = await self.http.get(
                f"/crm/v3/objects/{TYPES[kind]}",
                params=params,
                headers={"authorization": f"Bearer {AUDITOR}"},
            )
            answer.raise_for_status()
            body = answer.json()
            found |= {each["id"]: each for each in body["results"]}
            after = body.get("paging", {}).get("next", {}).get("after")
            if after is None:
                return found

    async def close(self):
        await self.http.aclose()
