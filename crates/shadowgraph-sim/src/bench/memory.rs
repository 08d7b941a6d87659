//! What replicas hold at most, over a week of little load and over a day without a quorum. Counts, not bytes of the
//! allocator: the simulator's own records would drown those.

use super::{Choice, Figure};
use crate::run::run;
use crate::scenario::Scenario;

pub(super) fn measure(choice: &Choice<'_>, show: &mut dyn FnMut(Figure)) {
    for name in ["week", "day-without-quorum"] {
        if !choice.has(name) {
            continue;
        }
        let scenario = Scenario::named(name).expect("a scenario of this name");
        let report = run(scenario, 0, false);
        assert!(report.is_good(), "{name}: {:?}", report.violations);
        let hours = report.virtual_us as f64 / 3.6e9;
        let figure = |what: &str, value: f64, unit| {
            Figure::plain("memory", format!("{name}: {what}"), value, unit)
        };
        show(figure("virtual time", hours, "h"));
        show(figure("events made", report.events as f64, "events"));
        for (what, (peak, bound), unit) in [
            ("most events in a graph", report.held.graph_events, "events"),
            (
                "most events that waited",
                report.held.pending_events,
                "events",
            ),
            ("most bytes in a pool", report.held.pool_bytes, "bytes"),
        ] {
            show(figure(what, peak as f64, unit).at_most(bound as f64));
        }
    }
}
