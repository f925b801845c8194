//! A plain request to a key whose answers are known not to be storable: it goes to the origin as it
//! came, and its answer passes. Nothing of it is kept, so it needs no exchange.
//!
//! What this decides: what such an answer is given. That it may be storable by now is noticed when
//! the mark ends and the next request goes the long way.

use super::event::ResponseSource;
use super::known::Known;
use super::passing;
use crate::cache_status::{CacheStatus, Detail, Forward, X_CACHE_STATUS};
use crate::fields::Fields;

/// Such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Whether the client is told how its answer came about.
    pub(super) told: bool,
}

/// What an answer is given on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedResponse {
    /// Another status code.
    pub status: Option<u16>,
    /// A line to add behind those of its name (RFC 9211 §2).
    pub add: Fields,
    /// Fields to set, in place of any of the same name.
    pub set: Fields,
    /// What to report.
    pub report: CacheStatus,
}

impl Marked {
    /// Whether what such an answer is given depends on who made it. One that succeeds is the
    /// origin's: so was the one that set the mark.
    pub fn asks_who_made(status: u16) -> bool {
        !(200..300).contains(&status)
    }

    /// What an answer with this status, made by `source`, is given.
    pub fn on_response(self, status: u16, source: ResponseSource) -> MarkedResponse {
        let known = Known::nothing(Forward::UriMiss, Some(Detail::Uncacheable));
        let (report, status) = passing::passed_on(&known, status, source);
        let (mut add, mut set) = (Fields::default(), Fields::default());
        if self.told {
            add = Fields::with_capacity(1, 80);
            add.append_with("cache-status", |text| report.write(text));
            set.append(X_CACHE_STATUS.as_bytes(), report.hit_or_miss().as_bytes());
        }
        MarkedResponse {
            status,
            add,
            set,
            report,
        }
    }
}
