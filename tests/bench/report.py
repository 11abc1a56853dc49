"""The result as text, and what follows from it."""
from bench_data import MIB

RSS_LIMIT = 300 * MIB
FOREIGN_LIMIT = 0.5  # CPUs
HEAD = ("", "wall s", "(min - max)", "durable", "CPU tool", "CPU server",
        "peak MiB", "written MiB", "foreign")
COST = ("wall", "durable", "all_cpu", "peak_rss")


def costs(case):
    return {"wall": case["wall"], "durable": case["durable"],
            "all_cpu": case["cpu"] + case["server_cpu"],
            "peak_rss": case["peak_rss"]}


def quotient(a, b):
    return {key: round(costs(a)[key] / costs(b)[key], 3) if costs(b)[key]
            else None for key in COST}


def ratios(groups):
    """{group: {tidemark case: {peer case: {cost: ratio}}}}."""
    found = {}
    for group, cases in groups.items():
        ours = [n for n in cases if n.startswith("tidemark")]
        theirs = [n for n in cases if not n.startswith("tidemark")]
        if group.startswith("scale"):
            found[group] = scale_ratios(cases)
        else:
            found[group] = {us: {them: quotient(cases[us], cases[them])
                                 for them in theirs} for us in ours}
    return found


def scale_ratios(cases):
    """The large disk against the small one, and us against the peer."""
    pairs = [(f"{tool}, 1 TiB", f"{tool}, 10 GiB")
             for tool in ("tidemark", "virtnbdbackup")]
    pairs += [(f"tidemark, {size}", f"virtnbdbackup, {size}")
              for size in ("10 GiB", "1 TiB")]
    found = {}
    for a, b in pairs:
        if a in cases and b in cases:
            found.setdefault(a, {})[b] = quotient(cases[a], cases[b])
    return found


def over_the_limit(groups):
    """Runs of Tidemark that used more memory than promised."""
    return [f"{group}: {name}: peak of {case['peak_rss'] / MIB:.0f} MiB, "
            f"the limit is {RSS_LIMIT // MIB}"
            for group, cases in groups.items() for name, case in cases.items()
            if name.startswith("tidemark") and case["peak_rss"] > RSS_LIMIT]


def notes(groups):
    """What spoils the figures, if anything."""
    seen = sorted(sample["foreign"] for cases in groups.values()
                  for case in cases.values() for sample in case["samples"])
    middle = seen[len(seen) // 2] if seen else 0
    if middle < FOREIGN_LIMIT:
        return []
    return [f"other work kept {middle:.1f} CPUs busy during the median run: "
            "the wall times mean little, go by the CPU times"]


def traits(name):
    """(compressed?, format) of a case; None where it does not matter."""
    packed = "zstd" in name or "-z" in name
    form = next((f for f in ("qcow2", "raw") if f"to {f}" in name), None)
    if name.startswith("virtnbdrestore"):
        form = "qcow2"
    if "plain copy" in name or name == "virtnbdbackup":
        packed = None
    return packed, form


def alike(ours, theirs):
    """Is it a fair pair?  The text shows only those, result.json all."""
    return all(a is None or b is None or a == b
               for a, b in zip(traits(ours), traits(theirs)))


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0])] + [
        cell.rjust(width) for cell, width in zip(row[1:], widths[1:])])
        for row in rows]


def case_row(name, case):
    return (name, f"{case['wall']:.2f}",
            f"({case['wall_min']:.2f} - {case['wall_max']:.2f})",
            f"{case['durable']:.2f}", f"{case['cpu']:.2f}",
            f"{case['server_cpu']:.2f}", f"{case['peak_rss'] / MIB:.0f}",
            f"{case['size'] / MIB:.1f}", f"{case['foreign']:.2f}")


def said_rows(cases):
    """What Tidemark said of its own backups, the median run's."""
    rows = []
    for name, case in cases.items():
        extra = case["samples"][-1]["extra"]
        if extra.get("read_bytes") is not None:
            rows.append("  {}: read {:.1f} MiB, dirty {:.1f}, new {:.1f}, "
                        "stored {:.1f}{}".format(
                            name, *(extra[k] / MIB for k in (
                                "read_bytes", "dirty_bytes", "new_bytes",
                                "stored_bytes")),
                            "".join(f"; {w}" for w in extra["warnings"])))
    return rows


def ratio_rows(group):
    rows = [("ratio to", "", *COST)]
    for ours, peers in group.items():
        rows += [(ours, theirs, *("-" if values[k] is None else
                                  f"{values[k]:.2f}" for k in COST))
                 for theirs, values in peers.items() if alike(ours, theirs)]
    return rows


def text(result):
    lines = ["{cpu}, {cpus} CPUs, {memory_mib} MiB; Linux {kernel}; {fs} on "
             "{work}".format(**result["machine"])]
    lines += [f"{k}: {v}" for k, v in result["versions"].items()]
    for group, cases in result["groups"].items():
        if not cases:
            continue
        lines += ["", f"== {group} =="]
        lines += table([HEAD] + [case_row(n, c) for n, c in cases.items()])
        lines += said_rows(cases)
        if result["ratios"].get(group):
            lines += [""] + table(ratio_rows(result["ratios"][group]))
    for name, rows in result["tables"].items():
        lines += ["", f"== {name} =="] + table([tuple(r) for r in rows])
    lines.append("")
    lines += [f"not measured: {m['what']}: {m['reason']}"
              for m in result["not_measured"]]
    lines += [f"NOTE: {note}" for note in result["notes"]]
    lines += [f"PROBLEM: {problem}" for problem in result["problems"]]
    return "\n".join(lines) + "\n"
