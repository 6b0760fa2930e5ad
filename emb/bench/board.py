"""Judges what was measured on a board: what may have disturbed it. Measures nothing itself."""

from __future__ import annotations

from emb.spec.board import BoardRun


def doubts(run: BoardRun) -> tuple[str, ...]:
    """What a reader must know before the figures of a run are believed, or compared with those of another board."""
    found: list[str] = []
    for moment, state in (("before", run.before), ("after", run.after)):
        flags = state.throttled
        if flags is None:
            continue
        if flags.under_voltage:
            found.append(f"the supply was too weak {moment} the measurement (under-voltage)")
        if flags.throttled or flags.frequency_capped or flags.soft_temperature_limit:
            found.append(f"the firmware held the clock back {moment} the measurement")
    now, then = run.before.throttled, run.after.throttled
    if then is not None and now is not None and then.under_voltage_since_boot and not now.under_voltage_since_boot:
        found.append("the supply was too weak during the measurement (under-voltage)")
    governors = {state.governor for state in (run.before, run.after)} - {None}
    if governors - {"performance"}:
        names = " and ".join(sorted(name for name in governors if name))
        found.append(f"the clock's governor is {names}, so the clock may have changed")
    if run.before.load_average is not None and run.before.load_average > run.machine.cores / 2:
        found.append(f"the board was busy before: {run.before.load_average:.1f} tasks for {run.machine.cores} cores")
    if run.sustained_us > 1.1 * run.first_us:
        slower = 100 * (run.sustained_us / run.first_us - 1)
        found.append(
            f"it became {slower:.0f} % slower: {run.first_us:,.0f} µs at first, {run.sustained_us:,.0f} µs at last"
        )
    return tuple(found)
