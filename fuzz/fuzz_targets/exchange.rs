//! One request and its answer, every field of both from outside.
#![no_main]

use std::sync::Arc;

use larder_cache_core::exchange::{Event, Exchange, Local, ResponseSource, Setup, SlotAnswer, StoreAnswer};
use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::Policy;
use larder_cache_core::route::RefreshPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|&byte| byte == b'\n');
    let mut request = Request::new("GET", "a", "/");
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':').unwrap_or(line.len()));
        request.fields.append(name, value.get(1..).unwrap_or_default());
    }
    let mut fields = Fields::default();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':').unwrap_or(line.len()));
        fields.append(name, value.get(1..).unwrap_or_default());
    }
    let status = 200 + u16::from(data.first().copied().unwrap_or(0));
    let now = Timestamp::from_millis(1_700_000_000_000);
    let (policy, namespace) = (Arc::new(Policy::strict()), Arc::from(b"n".as_slice()));
    let (mut exchange, _) = Exchange::open(request, Setup { policy, namespace, refreshes: RefreshPath::Routed, rules: None }, now);
    exchange.handle(Event::Local(Local::default()), now);
    exchange.handle(Event::Slot(SlotAnswer::Lead), now);
    exchange.handle(Event::Store(StoreAnswer::Nothing { uncacheable: false }), now);
    let head = ResponseHead { status, fields };
    exchange.handle(Event::Response { head, source: ResponseSource::Origin, end: false }, now);
    exchange.handle(Event::Body { chunk: data, end: true }, now);
});
