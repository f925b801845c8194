//! HTTP/2 frames as bytes: a client that says what no library would.
//!
//! Fields are sent literally (RFC 7541 §6.2.2), so no table is needed. Of an answer only the
//! status, where it stands alone in one octet, and the content are read; what reached the origin is
//! in its journal.

use std::time::Duration;

use crate::wire::Connection;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One frame on stream 1 (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(0).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// `HEADERS`, the last of its stream or not.
pub(crate) fn headers(fields: &[(&str, &str)], ends: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name.as_bytes());
        literal(&mut block, value.as_bytes());
    }
    frame(
        HEADERS,
        END_HEADERS | if ends { END_STREAM } else { 0 },
        1,
        &block,
    )
}

/// `DATA`, the last of its stream.
pub(crate) fn last_data(content: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, 1, content)
}

/// A string literal without Huffman coding, its length as a 7-bit prefix integer (RFC 7541 §5.1).
fn literal(block: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        block.push(u8::try_from(text.len()).unwrap_or(0));
    } else {
        block.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap_or(0) | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap_or(0));
    }
    block.extend_from_slice(text);
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether the answer's status is 200.
    pub(crate) is_ok: bool,
    /// Whether it came to its end, rather than to a reset, a closed connection or silence.
    pub(crate) is_whole: bool,
    pub(crate) content: Vec<u8>,
}

/// Sends frames on a fresh connection and reads until the stream is over.
pub(crate) async fn exchange(
    address: &str,
    frames: &[Vec<u8>],
    patience: Duration,
) -> Result<Ended, String> {
    let mut connection = Connection::open(address, patience).await?;
    let opening = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
    ];
    connection
        .write(&[opening.concat(), frames.concat()].concat())
        .await;
    let mut ended = Ended {
        is_ok: false,
        is_whole: false,
        content: Vec::new(),
    };
    loop {
        let Ok(head) = connection.exactly(9).await else {
            return Ok(ended);
        };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Ok(content) = connection.exactly(length).await else {
            return Ok(ended);
        };
        let (kind, flags) = (head[3], head[4]);
        match kind {
            RESET | GO_AWAY => return Ok(ended),
            // `:status: 200` is the eighth entry of the static table. A size update may come first.
            HEADERS => ended.is_ok = content.iter().take(4).any(|octet| *octet == 0x88),
            DATA => ended.content.extend(content),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            ended.is_whole = true;
            return Ok(ended);
        }
    }
}
