//! An answer of the cache's own on its way to Envoy: given at once, or put in place of what passes
//! our response callbacks.
//!
//! What this decides: which of the two. What is answered was decided by the core.
//!
//! Envoy treats what `reply` is given as an error page of its own: the route adds its fields once
//! more to those that were stored with it, `local_reply_config` rewrites status and content, a
//! missing `Content-Type` becomes `text/plain`. What stands in our own response callbacks goes to
//! the client as it is. So an answer is given at once only where a first answer from the same
//! stored response was seen to pass unchanged, and its passage is watched.

use larder_cache_core::exchange::Reply;
use larder_cache_core::fields::Fields;
use larder_cache_core::stored_response::{StoredResponse, Treatment};
use rustc_hash::FxHashMap;

use crate::calls::SERVICE_TIME;
use crate::host::{Host, Map};
use crate::stream::Action;

/// Answers of this size are never given at once. Envoy copies what `reply` is given three times,
/// and what is put in place of a passing response once. Two more calls cost as much as copying so
/// many bytes of content; a byte of the head, which comes in many pieces, counts for several.
pub const DEFERRED_FROM: usize = 4096;
const HEAD_BYTE: usize = 6;
/// The content that stands in: not empty, or no content would pass.
const STAND_IN: &[u8] = b"-";

/// An answer that goes out as something else passes: a stand-in, or the origin's response.
#[derive(Debug)]
struct Unsent {
    reply: Reply,
    /// Whether what passes is a stand-in of ours.
    stands_in: bool,
    /// Whether its content is out.
    begun: bool,
}

/// An answer that was given at once and has not passed our response callbacks.
#[derive(Debug)]
struct Given {
    stream: u32,
    reply: Reply,
}

/// An answer in place of a response without content, which passes no callback of ours.
#[derive(Clone, Copy, Debug)]
struct Unseen {
    status: u16,
    length: u64,
}

/// What Envoy says of an answer that passes as it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The stream; 0 is none.
    pub stream: u32,
    /// Lines of its head, `:status` among them.
    pub lines: u32,
    /// Bytes of its content.
    pub length: u32,
}

/// The answers of one worker that are on their way, and what was seen of Envoy's treatment of them.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Those that go out as something passes our own response callbacks.
    unsent: FxHashMap<u32, Unsent>,
    /// Those that go out without passing our response callbacks.
    unseen: FxHashMap<u32, Unseen>,
    /// The last that was given at once: Envoy may not let it pass as it is.
    given: Option<Given>,
    /// Whether Envoy was seen to rewrite an answer of ours as an error page.
    are_rewritten: bool,
    /// Whether the stream that is passing was broken off in this callback.
    broke_off: bool,
}

impl Answers {
    /// There is a new configuration: what was seen of the host may have been mended with it.
    pub(crate) fn trust_host(&mut self) {
        self.are_rewritten = false;
    }

    /// Answers a request that has not gone on. `in_callback` says whether Envoy is calling about
    /// this very request: only then our response callbacks come next, and with them a chance to
    /// watch the answer pass.
    pub(crate) fn reply<H: Host>(&mut self, host: &H, id: u32, reply: Reply, in_callback: bool) {
        if in_callback && is_given_at_once(&reply) {
            send(host, &reply);
            self.given = Some(Given { stream: id, reply });
            return;
        }
        let stand_in = if reply.content().is_empty() {
            b""
        } else {
            STAND_IN
        };
        if host
            .reply(reply.status, &[], stand_in, reply.details.word())
            .is_err()
        {
            host.log(log::Level::Warn, "larder: Envoy refused an answer");
        } else {
            self.unsent.insert(id, Unsent::new(reply, true));
        }
    }

    /// Answers in place of the origin's response, whose head is passing and whose content, if ours
    /// has any, follows: that makes room for it.
    pub(crate) fn reply_in_place<H: Host>(&mut self, host: &H, id: u32, reply: Reply) {
        self.unsent.insert(id, Unsent::new(reply, false));
        self.send_head(host, id);
    }

    /// Answers with content in place of the origin's response that has none: Envoy has to be given
    /// the answer, and sends it past all filters to the client. The route adds its fields to it
    /// once more, so those go without.
    pub(crate) fn reply_past_filters<H: Host>(&mut self, host: &H, id: u32, mut reply: Reply) {
        self.unseen.insert(
            id,
            Unseen {
                status: reply.status,
                length: reply.content().len() as u64,
            },
        );
        let added = host
            .headers(Map::Response)
            .map(|passing| added_by_route(&passing))
            .unwrap_or_default();
        if !added.is_empty() {
            let mut fields = Fields::default();
            let mut to_come: Vec<_> = added.iter().collect();
            for line in reply.parts().into_iter().flat_map(Fields::iter) {
                match to_come.iter().position(|added| *added == line) {
                    Some(at) => drop(to_come.swap_remove(at)),
                    None => fields.append(line.0, line.1),
                }
            }
            (reply.stored, reply.fields) = (None, fields);
        }
        send(host, &reply);
    }

    /// Whether the origin may be asked if `stored` still holds. The answer to its `304` would go
    /// past all filters, so where one is needed, or Envoy would make something else of the answer,
    /// the origin is asked for the whole instead.
    pub(crate) fn may_validate(&self, stored: &StoredResponse, is_cross_origin: bool) -> bool {
        let is_typed = stored.body.is_empty() || stored.fields.contains("content-type");
        // An answer that names no allowed origin is of use to a cross-origin request only if a
        // filter adds one.
        let is_shared = !is_cross_origin || stored.fields.contains("access-control-allow-origin");
        is_typed && is_shared && !self.are_rewritten
    }

    /// The stream is over. If it got an answer that we did not see pass, Envoy still knows its
    /// status and how much content went out; of its head it shows the one that was replaced.
    pub(crate) fn end<H: Host>(&mut self, host: &H, id: u32) {
        self.unsent.remove(&id);
        let Some(Unseen { status, length }) = self.unseen.remove(&id) else {
            return;
        };
        let number = |name: &str| {
            let bytes = host.property(&["response", name])?;
            bytes.first_chunk().copied().map(u64::from_le_bytes)
        };
        let other_status = number("code").is_some_and(|code| code != u64::from(status));
        let other_length = number("size").is_some_and(|size| size != length);
        self.are_rewritten |= other_status || other_length;
    }

    /// How the answer that was given last should pass, if it was given at once to this stream.
    pub(crate) fn expected_passage(&self, id: u32) -> Option<Passage> {
        let given = self.given.as_ref().filter(|given| given.stream == id)?;
        let fields: usize = given.reply.parts().iter().map(|part| part.len()).sum();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        // Envoy adds `:status` and `content-length`.
        Some(Passage {
            stream: id,
            lines: number(fields + 2),
            length: number(given.reply.content().len()),
        })
    }

    /// An answer that was given at once does not pass as it should: its head is put right as a
    /// stand-in's would be, and later ones from the same stored response are not given at once.
    pub(crate) fn correct_passage(&mut self, id: u32) {
        if let Some(given) = self.given.take_if(|given| given.stream == id) {
            note(&given.reply, Treatment::Changed);
            self.unsent.insert(id, Unsent::new(given.reply, true));
        }
    }

    /// If an answer of our own goes out as something passes: its head in place of that one's. Says
    /// whether one does.
    pub(crate) fn send_head<H: Host>(&mut self, host: &H, id: u32) -> bool {
        let Some(unsent) = self.unsent.get(&id) else {
            return false;
        };
        let reply = &unsent.reply;
        let may_be_learnt = reply
            .stored
            .as_ref()
            .is_some_and(|stored| stored.treatment.get().is_none());
        if unsent.stands_in && may_be_learnt && !reply.content().is_empty() {
            let seen = host.headers(Map::Response).unwrap_or_default();
            let is = |name: &str, value: &[u8]| seen.get(name) == Some(value);
            let status = seen
                .get(":status")
                .is_some_and(|status| is_number(status, reply.status.into()));
            let is_rewritten =
                !(status && is("content-length", b"1") && is("content-type", b"text/plain"));
            let is_exact = !is_rewritten && seen.len() == 3;
            note(
                reply,
                if is_exact {
                    Treatment::Exact
                } else {
                    Treatment::Changed
                },
            );
            self.are_rewritten |= is_rewritten;
        }
        let _ = host.replace_headers(Map::Response, &reply.parts());
        true
    }

    /// If an answer of our own goes out as something passes: its content in place of that one's
    /// first piece, nothing in place of the others. Says whether one does.
    pub(crate) fn send_content<H: Host>(&mut self, host: &H, id: u32, length: usize) -> bool {
        let Some(unsent) = self.unsent.get_mut(&id) else {
            return false;
        };
        let content = if std::mem::replace(&mut unsent.begun, true) {
            &[]
        } else {
            unsent.reply.content()
        };
        if length > 0 || !content.is_empty() {
            let _ = host.replace_response_body(content);
        }
        true
    }

    /// Trailers pass where no content did: there was no place for ours, and a head that promised it
    /// must not be left alone.
    pub(crate) fn miss_content<H: Host>(&mut self, host: &H, id: u32) -> bool {
        let Some(unsent) = self.unsent.get(&id) else {
            return false;
        };
        if !unsent.begun && !unsent.reply.content().is_empty() {
            self.break_off(host);
        }
        true
    }

    /// Ends the client's stream whose answer cannot be completed.
    pub(crate) fn break_off<H: Host>(&mut self, host: &H) {
        let _ = host.break_off();
        self.broke_off = true;
    }

    /// What Envoy does with what passes now. It has given up the client's stream by the time
    /// `break_off` returns; trailers that went on from there crashed it.
    pub(crate) fn passing(&mut self) -> Action {
        if std::mem::take(&mut self.broke_off) {
            Action::Pause
        } else {
            Action::Continue
        }
    }
}

fn send<H: Host>(host: &H, reply: &Reply) {
    if host
        .reply(
            reply.status,
            &reply.parts(),
            reply.content(),
            reply.details.word(),
        )
        .is_err()
    {
        host.log(log::Level::Warn, "larder: Envoy refused an answer");
    }
}

/// The lines of a passing head that the route added: Envoy's router puts its own field behind what
/// the origin sent, and the route's fields behind that. Where the origin sent that field itself, as
/// an Envoy does, it says nothing: what such an origin adds last is its `Date`.
fn added_by_route(passing: &Fields) -> Fields {
    let mut lines = passing
        .iter()
        .skip_while(|(name, _)| *name != SERVICE_TIME.as_bytes());
    lines.next();
    let added = Fields::from_pairs(lines);
    if added.contains("date") {
        Fields::default()
    } else {
        added
    }
}

fn is_number(text: &[u8], number: usize) -> bool {
    itoa::Buffer::new().format(number).as_bytes() == text
}

fn is_given_at_once(reply: &Reply) -> bool {
    let Some(stored) = &reply.stored else {
        return false;
    };
    let content = reply.content().len();
    stored.treatment.get() == Some(Treatment::Exact)
        && content > 0
        && content
            + reply
                .parts()
                .iter()
                .map(|part| part.text_len())
                .sum::<usize>()
                * HEAD_BYTE
            < DEFERRED_FROM
        && stored.fields.contains("content-type")
}

fn note(reply: &Reply, treatment: Treatment) {
    if let Some(stored) = &reply.stored {
        stored.treatment.note(treatment);
    }
}

impl Unsent {
    fn new(mut reply: Reply, stands_in: bool) -> Self {
        // What Envoy works out for what passes alone.
        let (mut status, mut length) = (itoa::Buffer::new(), itoa::Buffer::new());
        reply
            .fields
            .append(b":status", status.format(reply.status).as_bytes());
        if !matches!(reply.status, 204 | 304) {
            reply.fields.append(
                b"content-length",
                length.format(reply.content().len()).as_bytes(),
            );
        }
        Self {
            reply,
            stands_in,
            begun: false,
        }
    }
}
