//! The scenarios, a file for each few classes. Each begins with its data; the functions below it
//! try one input.

use crate::scenario::Scenario;

mod amplification;
mod clocks;
mod codings;
mod control;
mod credentials;
mod deception;
mod denial;
mod fields;
mod flooding;
mod hangs;
mod herds;
mod identity;
mod invalidation;
mod metadata;
mod poisoning;
mod purging;
mod ranges;
mod refreshes;
mod same_fields;
mod smuggling;
mod spelling;
mod splitting;

/// Every scenario.
pub(crate) fn all() -> Vec<&'static Scenario> {
    let files: [&'static [Scenario]; 22] = [
        poisoning::SCENARIOS,
        refreshes::SCENARIOS,
        deception::SCENARIOS,
        denial::SCENARIOS,
        smuggling::SCENARIOS,
        splitting::SCENARIOS,
        credentials::SCENARIOS,
        identity::SCENARIOS,
        codings::SCENARIOS,
        spelling::SCENARIOS,
        flooding::SCENARIOS,
        herds::SCENARIOS,
        amplification::SCENARIOS,
        hangs::SCENARIOS,
        invalidation::SCENARIOS,
        purging::SCENARIOS,
        ranges::SCENARIOS,
        fields::SCENARIOS,
        same_fields::SCENARIOS,
        metadata::SCENARIOS,
        clocks::SCENARIOS,
        control::SCENARIOS,
    ];
    files.into_iter().flatten().collect()
}
