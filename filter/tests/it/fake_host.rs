//! A host that remembers what it was asked: one per VM, with shared data and queues common to all
//! VMs.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;
use larder_filter::config::REFRESH_CLUSTER;
use larder_filter::host::{Host, Map, Refused, Swap};

/// What all VMs of one Envoy have in common.
#[derive(Debug, Default)]
pub(crate) struct Common {
    pub(crate) shared: HashMap<String, (Vec<u8>, u32)>,
    queues: Vec<(String, VecDeque<Vec<u8>>)>,
    version: u32,
    pub(crate) now: u64,
}

/// An answer given to a client: stream, status, content, `cache-status`.
pub(crate) type Given = (u32, u16, String, String);

/// What one VM did and what it is told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) request: Fields,
    pub(crate) response: Fields,
    pub(crate) call_response: Fields,
    pub(crate) call_body: Vec<u8>,
    pub(crate) chunk: Vec<u8>,
    pub(crate) given_head: Fields,
    pub(crate) replaced_head: Fields,
    /// One for each piece of content.
    pub(crate) replaced_body: Vec<String>,
    pub(crate) prepended_body: String,
    pub(crate) broken_off: usize,
    pub(crate) added_by_route: Fields,
    /// Status and content of the answer that the client got, as Envoy knows them at the end.
    pub(crate) sent_response: (u64, u64),
    pub(crate) request_size: u64,
    pub(crate) effective: u32,
    pub(crate) gone: Vec<u32>,
    pub(crate) given: Vec<Given>,
    pub(crate) resumed: Vec<u32>,
    pub(crate) set: Vec<(String, String)>,
    /// Token, cluster, head, content.
    pub(crate) sent: Vec<(u32, String, Fields, Vec<u8>)>,
    /// The effective context of each of these.
    pub(crate) made_by: Vec<u32>,
    pub(crate) calls_made: usize,
    pub(crate) cluster_down: bool,
    /// Whether gRPC streams can be opened.
    pub(crate) has_streams: bool,
    /// Cluster and method of each.
    pub(crate) streams_opened: Vec<String>,
    pub(crate) streams_closed: Vec<u32>,
    /// What was sent on streams.
    pub(crate) frames: Vec<(u32, Vec<u8>)>,
    /// What has come on one.
    pub(crate) stream_message: Vec<u8>,
    pub(crate) tick_period: u64,
    /// The namespace of the stream's dynamic metadata, if it has any.
    pub(crate) metadata: Option<&'static str>,
    /// What the stream's route says to the cache in its metadata.
    pub(crate) route_metadata: Option<Fields>,
    /// Whether Envoy has the cluster that leads refreshes through its routes.
    pub(crate) has_refresh_cluster: bool,
    /// What Envoy says of how the response came about.
    pub(crate) details: String,
    pub(crate) log: Vec<String>,
    /// Sums of counters and gauges, numbers of recorded values.
    pub(crate) metrics: HashMap<String, i64>,
    random: u64,
}

/// The host of one VM.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    pub(crate) common: Rc<RefCell<Common>>,
    pub(crate) told: Rc<RefCell<Told>>,
}

impl Fake {
    pub(crate) fn new(common: &Rc<RefCell<Common>>, seed: u64) -> Self {
        let fake = Self {
            common: common.clone(),
            told: Rc::default(),
        };
        fake.told.borrow_mut().random = seed;
        fake
    }

    fn count(&self) -> std::cell::RefMut<'_, Told> {
        let mut told = self.told.borrow_mut();
        told.calls_made += 1;
        told
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Host for Fake {
    fn now(&self) -> Timestamp {
        self.count();
        Timestamp::from_millis(self.common.borrow().now)
    }

    fn random(&self) -> u64 {
        let mut told = self.count();
        told.random = told
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        told.random
    }

    fn headers(&self, map: Map) -> Result<Fields, Refused> {
        let told = self.count();
        Ok(match map {
            Map::Request => told.request.clone(),
            Map::Response => told.response.clone(),
            Map::CallResponse => told.call_response.clone(),
        })
    }

    fn header(&self, map: Map, name: &[u8]) -> Option<Vec<u8>> {
        let told = self.count();
        let fields = match map {
            Map::Request => &told.request,
            Map::Response => &told.response,
            Map::CallResponse => &told.call_response,
        };
        fields.combined(std::str::from_utf8(name).unwrap())
    }

    fn add_header(&self, _map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        self.count()
            .set
            .push((format!("+{}", text(name)), text(value)));
        Ok(())
    }

    fn set_header(&self, _map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        self.count().set.push((text(name), text(value)));
        Ok(())
    }

    fn remove_header(&self, _map: Map, name: &[u8]) -> Result<(), Refused> {
        self.count().set.push((text(name), String::new()));
        Ok(())
    }

    fn response_body(&self, length: usize) -> Result<Vec<u8>, Refused> {
        let told = self.count();
        Ok(told.chunk[..length.min(told.chunk.len())].to_vec())
    }

    fn replace_response_body(&self, body: &[u8]) -> Result<(), Refused> {
        self.count().replaced_body.push(text(body));
        Ok(())
    }

    fn prepend_response_body(&self, body: &[u8]) -> Result<(), Refused> {
        self.count().prepended_body = text(body);
        Ok(())
    }

    fn break_off(&self) -> Result<(), Refused> {
        self.count().broken_off += 1;
        Ok(())
    }

    fn reply(
        &self,
        status: u16,
        parts: &[&Fields],
        body: &[u8],
        _details: &str,
    ) -> Result<(), Refused> {
        let mut told = self.count();
        let said = parts
            .iter()
            .find_map(|part| part.get("cache-status"))
            .map(text)
            .unwrap_or_default();
        let stream = told.effective;
        told.given_head = Fields::from_pairs(parts.iter().flat_map(|part| part.iter()));
        told.given.push((stream, status, text(body), said));
        Ok(())
    }

    fn replace_headers(&self, _map: Map, parts: &[&Fields]) -> Result<(), Refused> {
        self.count().replaced_head = Fields::from_pairs(parts.iter().flat_map(|part| part.iter()));
        Ok(())
    }

    fn resume_request(&self) -> Result<(), Refused> {
        let mut told = self.count();
        let stream = told.effective;
        told.resumed.push(stream);
        Ok(())
    }

    fn set_effective_context(&self, context: u32) -> Result<(), Refused> {
        let mut told = self.count();
        if told.gone.contains(&context) {
            return Err(Refused(2));
        }
        told.effective = context;
        Ok(())
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        let (code, size, request, metadata, details) = {
            let told = self.count();
            (
                told.sent_response.0,
                told.sent_response.1,
                told.request_size,
                told.metadata,
                told.details.clone(),
            )
        };
        match path {
            ["request", "size"] => Some(request.to_le_bytes().to_vec()),
            ["xds", "cluster_name"] => Some(b"origin".to_vec()),
            ["xds", "route_metadata", "filter_metadata", "larder"] => {
                let said = self.told.borrow().route_metadata.clone()?;
                let mut list = Vec::new();
                larder_filter::pairs::write(&[&said], &mut list);
                Some(list)
            }
            ["metadata", "filter_metadata", namespace] => {
                (metadata == Some(*namespace)).then(|| b"sub".to_vec())
            }
            ["response", "code"] if code > 0 => Some(code.to_le_bytes().to_vec()),
            ["response", "size"] if code > 0 => Some(size.to_le_bytes().to_vec()),
            ["response", "code_details"] => Some(details.into_bytes()),
            _ => None,
        }
    }

    fn call(
        &self,
        cluster: &str,
        head: &Fields,
        body: &[u8],
        _timeout_ms: u64,
    ) -> Result<u32, Refused> {
        let mut told = self.count();
        if told.cluster_down {
            return Err(Refused(10));
        }
        if cluster == REFRESH_CLUSTER && !told.has_refresh_cluster {
            return Err(Refused(2));
        }
        let token = u32::try_from(told.sent.len()).unwrap() + 1;
        told.sent
            .push((token, cluster.to_owned(), head.clone(), body.to_vec()));
        let context = told.effective;
        told.made_by.push(context);
        Ok(token)
    }

    fn call_body(&self, length: usize) -> Result<Vec<u8>, Refused> {
        let told = self.count();
        Ok(told.call_body[..length.min(told.call_body.len())].to_vec())
    }

    fn open_stream(
        &self,
        cluster: &str,
        (service, method): (&str, &str),
        _metadata: &Fields,
    ) -> Result<u32, Refused> {
        let mut told = self.count();
        if !told.has_streams {
            return Err(Refused(10));
        }
        told.streams_opened
            .push(format!("{cluster} {service}/{method}"));
        Ok(u32::try_from(told.streams_opened.len()).unwrap())
    }

    fn send(&self, stream: u32, message: &[u8]) -> Result<(), Refused> {
        self.count().frames.push((stream, message.to_vec()));
        Ok(())
    }

    fn close_stream(&self, stream: u32) {
        self.count().streams_closed.push(stream);
    }

    fn stream_message(&self, length: usize) -> Result<Vec<u8>, Refused> {
        let told = self.count();
        Ok(told.stream_message[..length.min(told.stream_message.len())].to_vec())
    }

    fn set_tick_period(&self, millis: u64) {
        self.count().tick_period = millis;
    }

    fn shared(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>) {
        self.count();
        match self.common.borrow().shared.get(key) {
            Some((value, version)) => (
                Some(value.clone()).filter(|value| !value.is_empty()),
                Some(*version),
            ),
            None => (None, None),
        }
    }

    fn swap_shared(&self, key: &str, value: &[u8], version: Option<u32>) -> Swap {
        self.count();
        let mut common = self.common.borrow_mut();
        if common.shared.get(key).map(|(_, version)| *version) != version {
            return Swap::Lost;
        }
        common.version += 1;
        let version = common.version;
        common
            .shared
            .insert(key.to_owned(), (value.to_vec(), version));
        Swap::Done
    }

    fn set_shared(&self, key: &str, value: &[u8]) {
        self.count();
        let mut common = self.common.borrow_mut();
        common.version += 1;
        let version = common.version;
        common
            .shared
            .insert(key.to_owned(), (value.to_vec(), version));
    }

    fn register_queue(&self, name: &str) -> Result<u32, Refused> {
        self.count();
        let queues = &mut self.common.borrow_mut().queues;
        let known = queues.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            queues.push((name.to_owned(), VecDeque::new()));
            queues.len() - 1
        });
        Ok(u32::try_from(index).unwrap() + 1)
    }

    fn enqueue(&self, queue: u32, message: &[u8]) -> Result<(), Refused> {
        self.count();
        let mut common = self.common.borrow_mut();
        let queue = common
            .queues
            .get_mut(queue as usize - 1)
            .ok_or(Refused(1))?;
        queue.1.push_back(message.to_vec());
        Ok(())
    }

    fn dequeue(&self, queue: u32) -> Option<Vec<u8>> {
        self.count();
        self.common
            .borrow_mut()
            .queues
            .get_mut(queue as usize - 1)?
            .1
            .pop_front()
    }

    fn count(&self, name: &str, by: u64) {
        *Fake::count(self)
            .metrics
            .entry(name.to_owned())
            .or_default() += i64::try_from(by).unwrap();
    }

    fn move_gauge(&self, name: &str, by: i64) {
        *Fake::count(self)
            .metrics
            .entry(name.to_owned())
            .or_default() += by;
    }

    fn record(&self, name: &str, _value: u64) {
        *Fake::count(self)
            .metrics
            .entry(name.to_owned())
            .or_default() += 1;
    }

    fn log(&self, _level: log::Level, line: &str) {
        Fake::count(self).log.push(line.to_owned());
    }
}
