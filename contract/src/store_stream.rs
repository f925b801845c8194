//! The store stream: what a filter and its sidecar say to each other on one open gRPC stream.
//!
//! Each worker's VM opens one stream to [`SERVICE`]`/`[`METHOD`] and sends and receives the frames
//! below on it, each as one gRPC message. The bytes are not protobuf: Envoy hands them through as
//! they are. The messages mean what those of the HTTP API mean ([`crate::store_api`]); a frame is
//! the cheaper way to carry them.
//!
//! | the filter sends | answered by |
//! |---|---|
//! | [`Asked::Hello`], first of all | [`Said::Welcome`], or [`Said::OtherVersion`] and the end of the stream |
//! | [`Question::LookUp`] | [`Answer::LookUp`], at once or after the wait that it grants |
//! | [`Question::Write`], [`Question::Release`], [`Question::Invalidate`] | [`Answer::Done`] |
//! | [`Question::Follow`] | [`Answer::Purges`], when there are some or its wait is over |
//!
//! Every question has a number, which its answer repeats; answers come in any order. A question
//! that cannot be carried out is answered by [`Answer::Done`] with the status that the HTTP API
//! would have. The sidecar says how much it has read ([`Said::Taken`]), so that a filter can stop
//! sending entries to one that does not read.
//!
//! Numbers are big-endian. *Text* is its length (u16) and its bytes; *the rest* goes to the end of
//! the frame.
//!
//! ```text
//! hello        0x01  version u8   envoy u64
//! look-up      0x02  number u32   sent u64   key 32   lease: 0x00, or 0x01 holder u64 lease_ms u32 wait_ms u32
//!                    presented: count u16, then (name text, token 16) for each
//! write        0x03  number u32   sent u64   key 32   fence text, empty for none   entry: the rest
//! release      0x04  number u32   sent u64   key 32   fence text   uncacheable_ms u32
//! invalidate   0x05  number u32   sent u64   at u64   everything u8   keys: 32 each, the rest
//! follow       0x06  number u32   sent u64   wait_ms u32   after: 0x00, or 0x01 text
//!
//! welcome      0x81  version u8
//! other version 0x82 version u8
//! taken        0x83  bytes u64, of all frames since the stream began
//! found        0x84  number u32   ahead i64   kind u8 (FOUND)   fence text   entry: the rest, empty for none
//! done         0x85  number u32   status u16
//! purges       0x86  number u32   unheard_ms u64   events: JSON, the rest
//! ```
//!
//! What this leaves out: how frames travel, and when which is sent.

mod asked;
mod said;

pub use crate::wire::FrameFault;
pub use asked::{Asked, Question};
pub use said::{Answer, Said};

/// The version of every frame here. A filter and a sidecar of different versions do not use the
/// stream; the filter goes on by the HTTP API.
pub const VERSION: u8 = 1;
/// The gRPC service that serves the stream.
pub const SERVICE: &str = "larder.Store";
/// Its method.
pub const METHOD: &str = "Exchange";
/// Where it is found over HTTP/2: `/service/method`.
pub const PATH: &str = "/larder.Store/Exchange";

#[cfg(test)]
mod tests;
