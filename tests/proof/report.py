"""What a run says at its end, and what it leaves behind for whoever looks for the fault."""

import json

from proof.portal import Portal


def print_result(result, plan, arguments):
    """Figures, and each thing that is wrong."""
    truth, found = result.truth, result.audit
    print(f"\n{truth.edits} edits accepted on both sides in {result.editing_s:.0f} s; repeat with:")
    print(f"  ./dev prove {' '.join(arguments)}" + ("" if "--seed" in arguments else f" --seed {plan.seed}"))
    for title, counts in (
        ("edits", truth.counts),
        ("refused, as the rules say", truth.refused),
        ("went wrong", result.trouble),
    ):
        print(f"{title}: " + ", ".join(f"{name} {n}" for name, n in counts.most_common() if n))
    print(f"race rate: {truth.race_rate():.1%} of the numbers typed fell between our reading and our writing")
    waits = sorted(truth.waited_s) or [0.0]
    p50, p95 = (waits[int(part * (len(waits) - 1))] * 1000 for part in (0.5, 0.95))
    print(f"students waited {p50:.0f} ms (p50), {p95:.0f} ms (p95), {waits[-1] * 1000:.0f} ms at most")
    print(f"settled {result.settling_s:.1f} s after the last edit")
    print(
        f"calls to HubSpot: {json.dumps(result.calls.get('calls'))}, 429: {result.calls.get('rejected_429')}"
    )
    print(", ".join(f"{name} compared {n}" for name, n in found.compared.items()))
    print("conflicts: " + ", ".join(f"{name} {n}" for name, n in found.count_conflicts().most_common()))
    print(f"lost {sum(found.lost.values())} {dict(found.lost)}, invented {sum(found.invented.values())}"
          f" {dict(found.invented)}")  # fmt: skip
    print(
        "verify: "
        + " / ".join(text.strip().splitlines()[-1] for text in (result.verified, result.mirrored) if text)
    )
    for each in found.wrong[:40]:
        print(f"WRONG: {each}")
    if len(found.wrong) > 40:
        print(f"... and {len(found.wrong) - 40} more")
    print(
        "PROVED: nothing lost, nothing invented" if result.clean else f"{len(found.wrong)} things are WRONG"
    )


async def save_evidence(stage, result, directory):
    """For each suspect: the edits, the ledger, the contact's row and HubSpot's record, in `evidence.json`."""
    portal = Portal.at(stage.simulator.url)
    evidence = {}
    for who in sorted(result.audit.suspects)[:20]:
        evidence[who] = {
            "typed": {
                name: [vars(each) for each in edits]
                for (contact, name), edits in result.truth.numbers.items()
                if contact == who
            },
            "entries": await stage.run(
                "select to_jsonb(e) from tallybook.credit_entries e join tallybook.contacts c"
                " on c.id = e.contact_id where c.hubspot_id = %s order by e.id",
                who,
            ),
            "contact": await stage.run(
                "select to_jsonb(c) from tallybook.contacts c where hubspot_id = %s", who
            ),
            "balances": await stage.run(
                "select to_jsonb(b) from tallybook.credit_balances b join tallybook.contacts c"
                " on c.id = b.contact_id where c.hubspot_id = %s",
                who,
            ),
            "hubspot": await portal.record("contact", who),
        }
    await portal.close()
    (directory / "evidence.json").write_text(json.dumps(evidence, indent=1, default=str))
