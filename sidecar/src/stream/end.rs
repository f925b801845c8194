//! Why a stream ends, in gRPC's numbers and in words.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use larder_contract::store_stream::VERSION;

use super::messages::MessageFault;
use crate::listening::Peer;

/// Why this end ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The filter says no more, or the sidecar stops.
    Peace,
    /// The filter's first word was of another version.
    OtherVersion(u8),
    /// What came is no frame, or came out of turn.
    NotUnderstood,
    /// What came is not framed as it should be.
    NotFramed(MessageFault),
    /// The first frame, or the rest of one, did not come.
    Silent,
}

impl End {
    fn status(self) -> &'static str {
        match self {
            Self::Peace => "0",
            Self::NotUnderstood => "3",
            Self::Silent => "4",
            Self::NotFramed(MessageFault::TooLong) => "8",
            Self::OtherVersion(_) => "9",
            Self::NotFramed(MessageFault::Compressed) => "12",
        }
    }

    /// The status as the stream's last words.
    pub(super) fn trailers(self) -> HeaderMap {
        let status = HeaderValue::from_static(self.status());
        HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)])
    }

    /// What an operator should know.
    pub(super) fn words(self, peer: Peer) -> Option<String> {
        Some(match self {
            Self::Peace => return None,
            Self::OtherVersion(theirs) => format!(
                "a filter at {peer} speaks version {theirs} of the store stream and this sidecar version \
                 {VERSION}: use both of one release; until then it asks by single calls"
            ),
            Self::NotUnderstood => format!(
                "a store stream from {peer} is ended: what it says is not understood; use filters of the \
                 sidecar's version"
            ),
            Self::NotFramed(MessageFault::TooLong) => format!(
                "a store stream from {peer} is ended: a message is longer than LARDER_MAX_ENTRY_BYTES allows"
            ),
            Self::NotFramed(MessageFault::Compressed) => {
                format!("a store stream from {peer} is ended: a message is compressed")
            }
            Self::Silent => {
                format!("a store stream from {peer} is ended: it began a message and fell silent")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_but_a_peaceful_one_is_one_line_that_names_the_peer() {
        let peer = Peer(Some([10, 0, 0, 1].into()));
        for end in [
            End::OtherVersion(9),
            End::NotUnderstood,
            End::NotFramed(MessageFault::TooLong),
            End::NotFramed(MessageFault::Compressed),
            End::Silent,
        ] {
            let line = end.words(peer).unwrap();
            assert!(line.contains("10.0.0.1") && !line.contains('\n'), "{line}");
            assert_ne!(end.trailers()["grpc-status"], "0");
        }
        assert_eq!(End::Peace.words(peer), None);
        assert_eq!(End::Peace.trailers()["grpc-status"], "0");
    }
}
