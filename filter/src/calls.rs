//! Calls of our own, and how an answer to one is read.
//!
//! What this decides: what counts as an answer. Envoy answers in the place of an upstream that it
//! did not reach; such an answer says something of the way there and nothing of the upstream.

use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::store_api::Fence;
use rustc_hash::FxHashMap;

use crate::config::Config;
use crate::host::{Host, Map, Refused};
use crate::metrics::Metrics;

/// The field in which Envoy's router says how long the upstream took. Envoy's own answers lack it.
pub(crate) const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// What an answer repeats, so that it is known what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Token {
    /// Envoy's, of an HTTP call.
    Call(u32),
    /// Ours, of a question on the store stream.
    Frame(u32),
}

/// A call or a question of our own under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) purpose: Purpose,
    /// The lease that is to be given back should the call fail: a look-up may have been given it
    /// without our seeing it, a write would have ended it.
    pub(crate) holds: Option<(KeyDigest, Fence)>,
    pub(crate) config: Rc<Config>,
    pub(crate) sent: Timestamp,
    /// When a question counts as not answered. Envoy keeps the time of calls.
    until: Option<Timestamp>,
    /// The root context that made it. Envoy ends its calls with it, and tells nobody.
    root: u32,
}

/// What a call of our own is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A stream's look-up.
    LookUp(u32),
    /// A refresh's look-up.
    RefreshLookUp(u32),
    /// A refresh's request to the origin.
    RefreshFetch(u32),
    /// What has been purged, as soon as there is something.
    Follow,
    /// A write or release: only its failure is of interest.
    Tell,
    /// Invalidations that the store has to accept.
    Invalidate,
}

/// What is to be noted of a call that is made.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) purpose: Purpose,
    pub(crate) holds: Option<(KeyDigest, Fence)>,
    pub(crate) config: Rc<Config>,
    pub(crate) now: Timestamp,
}

/// A request of our own, and how many milliseconds its answer may take.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) head: &'a Fields,
    pub(crate) body: &'a [u8],
    pub(crate) timeout_ms: u64,
}

/// The calls and questions under way, by their tokens.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The root context that host calls concern now, and the context itself.
    root: u32,
    context: u32,
    under_way: FxHashMap<Token, Call>,
    /// The look-up of each stream that has one under way.
    look_ups: FxHashMap<u32, Token>,
    /// Calls that went with their root, and questions that went with the store stream.
    lost: Vec<Token>,
}

impl Calls {
    /// Host calls concern this context from now on, and what is sent is sent on behalf of its root
    /// context.
    pub(crate) fn set_context(&mut self, root: u32, context: u32) {
        (self.root, self.context) = (root, context);
    }

    /// Host calls concern this stream from now on.
    pub(crate) fn enter(&mut self, stream: u32) {
        self.context = stream;
    }

    /// On whose behalf calls are made now.
    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    /// The context that host calls concern now.
    pub(crate) fn context(&self) -> u32 {
        self.context
    }

    /// Makes a call. Gives its token.
    pub(crate) fn make<H: Host>(
        &mut self,
        host: &H,
        letter: &Letter<'_>,
        errand: Errand,
    ) -> Result<Token, Refused> {
        let token = host.call(letter.cluster, letter.head, letter.body, letter.timeout_ms)?;
        let token = Token::Call(token);
        self.note(token, errand, None, self.root);
        Ok(token)
    }

    /// A question is on its way, on a stream that belongs to a root context.
    pub(crate) fn asked(
        &mut self,
        number: u32,
        errand: Errand,
        timeout_ms: u64,
        root: u32,
    ) -> Token {
        let (token, until) = (Token::Frame(number), errand.now.plus_millis(timeout_ms));
        self.note(token, errand, Some(until), root);
        token
    }

    fn note(&mut self, token: Token, errand: Errand, until: Option<Timestamp>, root: u32) {
        let Errand {
            purpose,
            holds,
            config,
            now,
        } = errand;
        if let Purpose::LookUp(stream) = purpose {
            self.look_ups.insert(stream, token);
        }
        let call = Call {
            purpose,
            holds,
            config,
            sent: now,
            until,
            root,
        };
        self.under_way.insert(token, call);
    }

    /// The call is over, or nobody waits for it any more.
    pub(crate) fn take(&mut self, token: Token) -> Option<Call> {
        let call = self.under_way.remove(&token)?;
        if let Purpose::LookUp(stream) = call.purpose {
            self.look_ups.remove(&stream);
        }
        Some(call)
    }

    /// A root is gone, and its calls with it.
    pub(crate) fn lose(&mut self, root: u32) {
        self.lose_all(|_, call| call.root == root);
    }

    /// The store stream is gone, and the answers to its questions with it.
    pub(crate) fn lose_frames(&mut self) {
        self.lose_all(|token, _| matches!(token, Token::Frame(_)));
    }

    fn lose_all(&mut self, is_lost: impl Fn(&Token, &Call) -> bool) {
        let lost = self
            .under_way
            .iter()
            .filter(|(token, call)| is_lost(token, call));
        self.lost.extend(lost.map(|(token, _)| *token));
    }

    /// Calls and questions that will not be answered, each once.
    pub(crate) fn take_lost(&mut self) -> Vec<(Token, Call)> {
        let lost = std::mem::take(&mut self.lost);
        lost.into_iter()
            .filter_map(|token| Some((token, self.take(token)?)))
            .collect()
    }

    /// Questions whose time is up.
    pub(crate) fn take_overdue(&mut self, now: Timestamp) -> Vec<(Token, Call)> {
        let is_due = |call: &Call| call.until.is_some_and(|until| until <= now);
        let due: Vec<Token> = self
            .under_way
            .iter()
            .filter_map(|(token, call)| is_due(call).then_some(*token))
            .collect();
        due.into_iter()
            .filter_map(|token| Some((token, self.take(token)?)))
            .collect()
    }

    /// Whether a look-up's answer is waited for.
    pub(crate) fn has_look_ups(&self) -> bool {
        !self.look_ups.is_empty()
    }

    /// A stream's look-up: Envoy tells nobody of an answer whose stream is gone.
    pub(crate) fn take_look_up_of(&mut self, stream: u32) -> Option<Call> {
        let token = *self.look_ups.get(&stream)?;
        self.take(token)
    }
}

/// The way out of a VM: the host, the calls under way, the counters. It is lent to every room that
/// calls out.
#[derive(Debug)]
pub(crate) struct Outside<H> {
    pub(crate) host: H,
    pub(crate) calls: Calls,
    pub(crate) metrics: Metrics,
}

impl<H> Outside<H> {
    /// Nothing has been called or counted yet.
    pub(crate) fn of(host: H) -> Self {
        Self {
            host,
            calls: Calls::default(),
            metrics: Metrics::default(),
        }
    }
}

/// What came back for a call of our own: an upstream's answer, or what Envoy made up in its place.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    /// 0 where there is none.
    pub(crate) status: u16,
    /// Whether an upstream answered.
    pub(crate) from_upstream: bool,
    /// Whether Envoy handed over a head at all. It has none for a call that came to nothing, nor
    /// for an answer larger than it may gather.
    pub(crate) has_head: bool,
    /// Without `:status`.
    pub(crate) fields: Fields,
    /// Refused where Envoy shows no content though there is some.
    pub(crate) body: Result<Vec<u8>, Refused>,
}

impl CallAnswer {
    /// None: the call went with its root.
    pub(crate) fn none() -> Self {
        Self {
            status: 0,
            from_upstream: false,
            has_head: false,
            fields: Fields::default(),
            body: Ok(Vec::new()),
        }
    }

    /// What Envoy is calling about now. The content of its own answers is left where it is.
    pub(crate) fn read<H: Host>(host: &H, num_headers: usize, body_length: usize) -> Self {
        let has_head = num_headers > 0;
        let mut fields = if has_head {
            host.headers(Map::CallResponse).unwrap_or_default()
        } else {
            Fields::default()
        };
        let (status, from_upstream) = (status_of(&fields), fields.contains(SERVICE_TIME));
        fields.remove(b":status");
        let shows_body = from_upstream && body_length > 0;
        let body = if shows_body {
            host.call_body(body_length)
        } else {
            Ok(Vec::new())
        };
        Self {
            status,
            from_upstream,
            has_head,
            fields,
            body,
        }
    }
}

/// The status in a head that Envoy hands over; 0 where there is none.
pub(crate) fn status_of(fields: &Fields) -> u16 {
    read_status(fields.get(":status"))
}

/// The status in the value of `:status`; 0 where there is none.
pub(crate) fn read_status(text: Option<&[u8]>) -> u16 {
    text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        .unwrap_or(0)
}
