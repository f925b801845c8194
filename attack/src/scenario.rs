//! What a scenario is: data that a reader can judge, and a small function that tries it.

use std::future::Future;
use std::pin::Pin;

use crate::setting::Setting;
use crate::visit::Visit;

/// The kinds of attack and of fault, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Poisoning,
    Deception,
    Denial,
    Smuggling,
    Splitting,
    Credentials,
    Codings,
    Vary,
    Spelling,
    Flooding,
    Herds,
    Amplification,
    Hangs,
    Invalidation,
    Ranges,
    Fields,
    Metadata,
    Clocks,
    Control,
}

impl Class {
    /// All of them.
    pub(crate) const ALL: [Self; 19] = [
        Self::Poisoning,
        Self::Deception,
        Self::Denial,
        Self::Smuggling,
        Self::Splitting,
        Self::Credentials,
        Self::Codings,
        Self::Vary,
        Self::Spelling,
        Self::Flooding,
        Self::Herds,
        Self::Amplification,
        Self::Hangs,
        Self::Invalidation,
        Self::Ranges,
        Self::Fields,
        Self::Metadata,
        Self::Clocks,
        Self::Control,
    ];

    /// For the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Poisoning => "poisoning",
            Self::Deception => "deception",
            Self::Denial => "denial",
            Self::Smuggling => "smuggling",
            Self::Splitting => "splitting",
            Self::Credentials => "credentials",
            Self::Codings => "codings",
            Self::Vary => "vary",
            Self::Spelling => "spelling",
            Self::Flooding => "flooding",
            Self::Herds => "herds",
            Self::Amplification => "amplification",
            Self::Hangs => "hangs",
            Self::Invalidation => "invalidation",
            Self::Ranges => "ranges",
            Self::Fields => "fields",
            Self::Metadata => "metadata",
            Self::Clocks => "clocks",
            Self::Control => "control",
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Poisoning => "Cache poisoning by what is not in the key",
            Self::Deception => "Cache deception and path confusion",
            Self::Denial => "Denial of service by a cached error (CPDoS)",
            Self::Smuggling => "Request smuggling through hits",
            Self::Splitting => "Response splitting",
            Self::Credentials => "Leaks of credentials and of what belongs to one user",
            Self::Codings => "Content codings",
            Self::Vary => "Vary",
            Self::Spelling => "One resource under several spellings",
            Self::Flooding => "Flooding of variants, keys and memory",
            Self::Herds => "Herds",
            Self::Amplification => "Amplification",
            Self::Hangs => "Hangs",
            Self::Invalidation => "Evaded invalidation, forced invalidation, stale for ever",
            Self::Ranges => "Abuse of ranges",
            Self::Fields => "Abuse of header fields; a hit that differs from its miss",
            Self::Metadata => "Oversized metadata",
            Self::Clocks => "Games with clocks and lifetimes",
            Self::Control => "The control interface and the store",
        }
    }
}

/// How a check ends: well, or with what was instead of what was expected.
pub(crate) type Verdict = Result<(), String>;

/// A check under way.
pub(crate) type Checking = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One way of attacking, with the inputs it is tried with. Each input is one check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// The kind.
    pub(crate) class: Class,
    /// Unique within its class.
    pub(crate) name: &'static str,
    /// Where this is described in public.
    pub(crate) source: &'static str,
    /// What has to hold, in one sentence.
    pub(crate) expectation: &'static str,
    /// What it runs against.
    pub(crate) setting: Setting,
    /// What differs from check to check; the function says how it reads them.
    pub(crate) inputs: &'static [&'static str],
    /// Tries one input.
    pub(crate) check: fn(Visit) -> Checking,
}

impl Scenario {
    /// `class/name`.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.class.name(), self.name)
    }
}

/// Ends a check with what was instead, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use ensure;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::classes;

    #[test]
    fn names_are_unique_and_every_scenario_says_where_it_comes_from() {
        let mut seen = HashSet::new();
        for scenario in classes::all() {
            assert!(seen.insert(scenario.title()), "{}", scenario.title());
            assert!(
                !scenario.source.is_empty() && scenario.expectation.ends_with('.'),
                "{}",
                scenario.title()
            );
            let inputs: HashSet<_> = scenario.inputs.iter().collect();
            assert_eq!(
                inputs.len(),
                scenario.inputs.len(),
                "{}: an input twice",
                scenario.title()
            );
            assert!(!scenario.inputs.is_empty(), "{}", scenario.title());
        }
    }

    #[test]
    fn every_class_has_scenarios_and_there_are_enough_checks() {
        for class in Class::ALL {
            assert!(
                classes::all()
                    .iter()
                    .any(|scenario| scenario.class == class),
                "{}",
                class.name()
            );
        }
        let checks: usize = classes::all()
            .iter()
            .map(|scenario| scenario.inputs.len())
            .sum();
        assert!(checks >= 250, "{checks}");
    }
}
