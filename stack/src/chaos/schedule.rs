//! Which faults there are, and which of them come when: decided by the seed alone.

use std::collections::HashMap;
use std::fmt;

use super::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    KillSidecar,
    FreezeSidecar,
    FreezeRedis,
    EmptyRedis,
    RollBackRedis,
    FillRedis,
    EvictFromRedis,
    ReadOnlyRedis,
    SlowRedisLink,
    SilentRedisLink,
    ResetRedisLink,
    HalfOpenRedisLink,
    SlowStoreLink,
    SilentStoreLink,
    ResetStoreLink,
    HalfOpenStoreLink,
    FreezeEnvoy,
    RestartEnvoy,
    SwapFilter,
    OriginDown,
    OriginErrors,
}

/// What a fault takes hold of. Two faults never hold the same at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Sidecar(usize),
    Redis,
    RedisLink(usize),
    StoreLink(usize),
    Envoy(usize),
    Origin,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 21] = [
        Self::KillSidecar,
        Self::FreezeSidecar,
        Self::FreezeRedis,
        Self::EmptyRedis,
        Self::RollBackRedis,
        Self::FillRedis,
        Self::EvictFromRedis,
        Self::ReadOnlyRedis,
        Self::SlowRedisLink,
        Self::SilentRedisLink,
        Self::ResetRedisLink,
        Self::HalfOpenRedisLink,
        Self::SlowStoreLink,
        Self::SilentStoreLink,
        Self::ResetStoreLink,
        Self::HalfOpenStoreLink,
        Self::FreezeEnvoy,
        Self::RestartEnvoy,
        Self::SwapFilter,
        Self::OriginDown,
        Self::OriginErrors,
    ];

    /// What it takes hold of.
    fn part(self, side: usize) -> Part {
        match self {
            Self::KillSidecar | Self::FreezeSidecar => Part::Sidecar(side),
            Self::FreezeRedis
            | Self::EmptyRedis
            | Self::RollBackRedis
            | Self::FillRedis
            | Self::EvictFromRedis
            | Self::ReadOnlyRedis => Part::Redis,
            Self::SlowRedisLink
            | Self::SilentRedisLink
            | Self::ResetRedisLink
            | Self::HalfOpenRedisLink => Part::RedisLink(side),
            Self::SlowStoreLink
            | Self::SilentStoreLink
            | Self::ResetStoreLink
            | Self::HalfOpenStoreLink => Part::StoreLink(side),
            Self::FreezeEnvoy | Self::RestartEnvoy | Self::SwapFilter => Part::Envoy(side),
            Self::OriginDown | Self::OriginErrors => Part::Origin,
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::KillSidecar => "a sidecar is killed and started again",
            Self::FreezeSidecar => "a sidecar is frozen",
            Self::FreezeRedis => "Redis is frozen",
            Self::EmptyRedis => "Redis is killed and starts empty",
            Self::RollBackRedis => "Redis is killed and starts from an old snapshot",
            Self::FillRedis => "Redis is full (noeviction)",
            Self::EvictFromRedis => "Redis evicts everything (allkeys-lru)",
            Self::ReadOnlyRedis => "Redis takes no writes",
            Self::SlowRedisLink => "the way to Redis is slow",
            Self::SilentRedisLink => "the way to Redis is silent",
            Self::ResetRedisLink => "the way to Redis is reset",
            Self::HalfOpenRedisLink => "connections to Redis become half-open",
            Self::SlowStoreLink => "the way to the sidecar is slow",
            Self::SilentStoreLink => "the way to the sidecar is silent",
            Self::ResetStoreLink => "the way to the sidecar is reset",
            Self::HalfOpenStoreLink => "connections to the sidecar become half-open",
            Self::FreezeEnvoy => "an Envoy is frozen",
            Self::RestartEnvoy => "an Envoy is killed and started again",
            Self::SwapFilter => "an Envoy gets another configuration",
            Self::OriginDown => "the origin is down",
            Self::OriginErrors => "the origin answers 500",
        }
    }

    /// Whether clients may get errors that are not the cache's.
    pub(crate) fn is_the_origins(self) -> bool {
        matches!(self, Self::OriginDown | Self::OriginErrors)
    }
}

/// A fault of one side: Envoy 1 or 2, its sidecar, its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) side: usize,
}

impl Fault {
    /// What it takes hold of.
    pub(crate) fn part(self) -> Part {
        self.kind.part(self.side)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = self.side + 1;
        match self.part() {
            Part::Redis | Part::Origin => write!(out, "{}", self.kind.title()),
            Part::Envoy(_) => write!(out, "{} (Envoy {side})", self.kind.title()),
            Part::RedisLink(_) => write!(out, "{} (from sidecar {side})", self.kind.title()),
            Part::Sidecar(_) => write!(out, "{} (sidecar {side})", self.kind.title()),
            Part::StoreLink(_) => write!(out, "{} (from Envoy {side})", self.kind.title()),
        }
    }
}

/// How the fleet is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Two Envoys, a sidecar each, one Redis.
    Redis,
    /// Two Envoys, one sidecar with its memory.
    Memory,
}

impl Form {
    fn has(self, part: Part) -> bool {
        match self {
            Self::Redis => true,
            Self::Memory => !matches!(part, Part::Redis | Part::RedisLink(_) | Part::Sidecar(1)),
        }
    }
}

/// A fault that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// When, in milliseconds from the start.
    pub(crate) at_ms: u64,
    /// For how long.
    pub(crate) lasts_ms: u64,
    pub(crate) fault: Fault,
}

/// Nothing happens before: how things are in peace is measured too.
const FIRST_MS: u64 = 8_000;
/// Nothing begins so late that its consequences could not be seen any more.
const LAST_MS: u64 = 6_000;
/// The longest fault but for a few: longer than an Envoy believes without hearing.
const LONGEST_MS: u64 = 9_000;
/// The few go on: what is answered in the middle of them must be known elsewhere too. They come
/// only where faults are rare.
const LONG_MS: (u64, u64) = (20_000, 30_000);
const RARE_MS: u64 = 8_000;

/// All faults of a run: those whose title contains `only`, each kind once before any comes again.
pub(crate) fn plan(
    seed: u64,
    form: Form,
    length_ms: u64,
    every_ms: u64,
    only: &str,
) -> Vec<Planned> {
    let chosen = |kind: &Kind| form.has(kind.part(0)) && kind.title().contains(only);
    let mut random = Random::new(seed, 1);
    let mut deck: Vec<Kind> = Vec::new();
    let mut free: HashMap<Part, u64> = HashMap::new();
    let (mut at_ms, mut planned) = (FIRST_MS, Vec::new());
    loop {
        if deck.is_empty() {
            deck = Kind::ALL.into_iter().filter(chosen).collect();
            random.shuffle(&mut deck);
        }
        let Some(kind) = deck.pop() else {
            return planned;
        };
        let side = random.index(2);
        let fault = Fault {
            kind,
            side: if form.has(kind.part(side)) { side } else { 0 },
        };
        let lasts_ms = match random.chance(10) {
            true if every_ms >= RARE_MS => random.between(LONG_MS.0, LONG_MS.1),
            _ => random.between(800, LONGEST_MS.min(every_ms * 2).max(1_000)),
        };
        let part = free.entry(fault.part()).or_default();
        let begins_ms = at_ms.max(*part);
        if begins_ms + lasts_ms.max(LAST_MS) > length_ms {
            return planned;
        }
        *part = begins_ms + lasts_ms + 1_500;
        planned.push(Planned {
            at_ms: begins_ms,
            lasts_ms,
            fault,
        });
        // Every fourth is followed by another before it is over.
        at_ms += if random.chance(25) {
            lasts_ms.min(every_ms) / 2
        } else {
            every_ms * random.between(80, 120) / 100
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_another_gives_others() {
        let ten = |seed| plan(seed, Form::Redis, 600_000, 12_000, "");
        assert_eq!(ten(7), ten(7));
        assert_ne!(ten(7), ten(8));
        assert!((45..=75).contains(&ten(7).len()), "{}", ten(7).len());
    }

    #[test]
    fn every_kind_comes_and_none_takes_hold_of_what_another_holds() {
        for seed in 0..50 {
            let planned = plan(seed, Form::Redis, 600_000, 12_000, "");
            for kind in Kind::ALL {
                assert!(
                    planned.iter().any(|one| one.fault.kind == kind),
                    "{seed}: {kind:?}"
                );
            }
            for (n, one) in planned.iter().enumerate() {
                for other in &planned[n + 1..] {
                    let apart = one.at_ms + one.lasts_ms < other.at_ms
                        || other.at_ms + other.lasts_ms < one.at_ms;
                    assert!(
                        apart || one.fault.part() != other.fault.part(),
                        "{one:?} {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn some_kinds_can_be_chosen() {
        let planned = plan(1, Form::Redis, 300_000, 6_000, "half-open");
        assert!(planned.len() > 20);
        let chosen = [Kind::HalfOpenRedisLink, Kind::HalfOpenStoreLink];
        assert!(planned.iter().all(|one| chosen.contains(&one.fault.kind)));
        assert_eq!(plan(1, Form::Redis, 300_000, 6_000, "no such"), []);
    }

    #[test]
    fn without_redis_nothing_happens_to_it() {
        let planned = plan(1, Form::Memory, 300_000, 6_000, "");
        assert!(planned.len() > 20);
        assert!(planned.iter().all(|one| Form::Memory.has(one.fault.part())));
    }
}
