//! One HTTP stream: its exchange, and where its request and its response stand with Envoy. Only
//! here a request is let go.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::exchange::{Effects, Event, Exchange, ForwardedRequest, Reply};
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_cache_core::route::{RefreshPath, Sent};
use larder_cache_core::validation;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;

use crate::cause::Cause;
use crate::config::Config;
use crate::host::{Host, Map};

mod response;

pub(crate) use response::source_of;

/// What Envoy is told to do with what is passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Continue,
    /// Hold it.
    Pause,
}

/// What is known of a stream between callbacks.
#[derive(Debug)]
pub(crate) struct Stream {
    exchange: Exchange,
    config: Rc<Config>,
    policy: Arc<Policy>,
    /// The root context it belongs to.
    root: u32,
    client: Client,
    /// Where the request stands with Envoy.
    request: Passage,
    /// Where the response does.
    response: Passage,
    /// Whether content follows the response's head.
    content_follows: bool,
    /// Content to send before the response's own.
    before: Option<Arc<[u8]>>,
    replied: bool,
    /// How the request was changed when it went on, where that will be compared with what the
    /// origin got.
    change: Option<ForwardedRequest>,
}

/// What the client's request says of the answers that it can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Whether no answer has content.
    is_head: bool,
    /// Whether the request says from where it comes (`Origin`).
    is_cross_origin: bool,
}

/// Where something stands with Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Envoy is in our callback now; the action is what it returns.
    InCallback(Action),
    /// Envoy holds it until we resume.
    Held,
    /// Gone on.
    Passed,
}

/// How an answer of the cache's own gets to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The request has not gone on: as its answer.
    Request {
        /// Whether Envoy is calling about this very request.
        in_callback: bool,
    },
    /// In place of the response that is passing.
    InPlace,
    /// Past all filters: what is passing has no place for it.
    PastFilters,
}

impl Client {
    /// As the request says it.
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            is_head: request.method() == b"HEAD",
            is_cross_origin: request.fields.contains("origin"),
        }
    }
}

impl Stream {
    /// A stream whose exchange has begun. `request` is where its request stands.
    pub(crate) fn new(
        exchange: Exchange,
        client: Client,
        (config, policy): (&Rc<Config>, &Arc<Policy>),
        root: u32,
        request: Passage,
    ) -> Self {
        Self {
            exchange,
            config: config.clone(),
            policy: policy.clone(),
            root,
            client,
            request,
            response: Passage::Passed,
            content_follows: false,
            before: None,
            replied: false,
            change: None,
        }
    }

    /// Gives its exchange an event. What is to be done.
    pub(crate) fn handle(&mut self, event: Event<'_>, now: Timestamp) -> Effects {
        self.exchange.handle(event, now)
    }

    /// What its request is about.
    pub(crate) fn digest(&self) -> KeyDigest {
        self.exchange.key().digest()
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_over(&self) -> bool {
        self.exchange.is_over()
    }

    /// Whether it waits for another's fetch.
    pub(crate) fn is_waiting(&self) -> bool {
        self.exchange.is_waiting()
    }

    /// The configuration it came under.
    pub(crate) fn config(&self) -> &Rc<Config> {
        &self.config
    }

    /// The root context it belongs to.
    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    /// On whose behalf it changes what all share.
    pub(crate) fn cause(&self, id: u32) -> Cause {
        Cause {
            id,
            config: self.config.clone(),
            policy: self.policy.clone(),
        }
    }

    /// Whether a script of another origin asks.
    pub(crate) fn is_cross_origin(&self) -> bool {
        self.client.is_cross_origin
    }

    /// What was sent to the origin, where that will be compared with what it got.
    pub(crate) fn sent(&self) -> Option<Sent> {
        self.change
            .as_ref()
            .map(|change| Sent::by(self.exchange.request(), change))
    }

    /// What Envoy is to do with the request after the callback in which it came.
    pub(crate) fn leave_callback(&mut self) -> Action {
        let action = match self.request {
            Passage::InCallback(action) => action,
            Passage::Held => Action::Pause,
            Passage::Passed => Action::Continue,
        };
        self.request = if action == Action::Pause {
            Passage::Held
        } else {
            Passage::Passed
        };
        action
    }

    /// Lets the request go to the origin, changed so. `asks_whole`: without the conditions.
    pub(crate) fn forward<H: Host>(
        &mut self,
        host: &H,
        change: ForwardedRequest,
        asks_whole: bool,
    ) {
        if let Some(path) = &change.path {
            let _ = host.set_header(Map::Request, b":path", path);
        }
        for name in &change.remove {
            let _ = host.remove_header(Map::Request, name);
        }
        // Only the conditions are left out: host and scheme are as the key names them.
        let is_condition = |name: &[u8]| {
            validation::PRECONDITIONS
                .iter()
                .any(|known| known.as_bytes() == name)
        };
        for (name, value) in change
            .set
            .iter()
            .filter(|(name, _)| !(asks_whole && is_condition(name)))
        {
            let _ = host.set_header(Map::Request, name, value);
        }
        match self.request {
            Passage::InCallback(_) => self.request = Passage::InCallback(Action::Continue),
            Passage::Held => {
                self.request = Passage::Passed;
                let _ = host.resume_request();
            }
            Passage::Passed => {}
        }
        if self.config.refresh_path() == RefreshPath::Straight {
            self.change = Some(change);
        }
    }

    /// The stream is answered by the cache itself: how.
    pub(crate) fn take_reply(&mut self, reply: &Reply) -> Door {
        self.replied = true;
        if self.request != Passage::Passed {
            return Door::Request {
                in_callback: matches!(self.request, Passage::InCallback(_)),
            };
        }
        if self.content_follows || self.client.is_head || reply.content().is_empty() {
            return Door::InPlace;
        }
        if let Passage::InCallback(action) = &mut self.response {
            // Envoy has been given an answer: what passes ends here.
            *action = Action::Pause;
        }
        Door::PastFilters
    }
}
