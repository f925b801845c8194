//! Host calls that never panic: status codes in, `Result` out.
//!
//! Proxy-wasm's ABI 0.2.1 as C functions. The SDK's own declarations coexist with these.
#![allow(
    unsafe_code,
    reason = "the host's ABI is C functions over pointers into this module's memory"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ptr::null_mut;
use std::time::{SystemTime, UNIX_EPOCH};

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;

use crate::host::{Host, Map, Refused, Swap};
use crate::pairs;
use crate::steady_clock::SteadyClock;

mod streams;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: i32, message: *const u8, size: usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        length: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        length: usize,
        data: *const u8,
        size: usize,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, token: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(token: u32, value: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(token: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
}

const OK: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const STREAM_MESSAGE: u32 = 5;
const PLUGIN_CONFIGURATION: u32 = 7;
const COUNTER: u32 = 0;
const GAUGE: u32 = 1;
const HISTOGRAM: u32 = 2;
const REQUEST_STREAM: u32 = 0;
const RESPONSE_STREAM: u32 = 1;
/// Insert-if-absent: no value can have this version yet, and Envoy inserts an absent key whatever
/// version is given.
const ABSENT: u32 = u32::MAX;

/// Envoy as the host. Remembers the ids of the metrics it has defined.
#[derive(Debug, Default)]
pub(super) struct Envoy {
    metrics: RefCell<HashMap<String, Option<u32>>>,
    /// Where lists of fields are written, so that an answer needs no memory of its own.
    scratch: RefCell<Vec<u8>>,
    clock: SteadyClock,
}

/// Takes over a buffer that the host has allocated in this module's memory.
fn taken(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: the host allocated `data` with this module's own `proxy_on_memory_allocate`, which
    // makes a `Vec<u8>` of exactly `size` bytes and forgets it; nobody else holds it.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

fn read(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Refused> {
    let (mut data, mut size) = (null_mut(), 0);
    match call(&raw mut data, &raw mut size) {
        OK => Ok(taken(data, size)),
        status => Err(Refused(status)),
    }
}

fn done(status: u32) -> Result<(), Refused> {
    if status == OK {
        Ok(())
    } else {
        Err(Refused(status))
    }
}

pub(super) fn plugin_configuration() -> Vec<u8> {
    // SAFETY: plain calls with pointers to locals that outlive them.
    read(|data, size| unsafe {
        proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, usize::MAX >> 1, data, size)
    })
    .unwrap_or_default()
}

/// Gives the callback's own context back its place after others were driven.
pub(super) fn restore_context(context: u32) {
    // SAFETY: no pointers.
    unsafe { proxy_set_effective_context(context) };
}

fn map_number(map: Map) -> u32 {
    match map {
        Map::Request => 0,
        Map::Response => 2,
        Map::CallResponse => 6,
    }
}

impl Envoy {
    /// The metric's id; it is made when it is first used.
    fn metric(&self, kind: u32, name: &str) -> Option<u32> {
        let mut metrics = self.metrics.borrow_mut();
        if let Some(id) = metrics.get(name) {
            return *id;
        }
        let mut id = 0;
        // SAFETY: the host reads the name before it returns; the id is a local.
        let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) };
        let id = (status == OK).then_some(id);
        metrics.insert(name.to_owned(), id);
        id
    }
}

impl Host for Envoy {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.clock.read(Timestamp::from_millis(
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        ))
    }

    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }

    fn headers(&self, map: Map) -> Result<Fields, Refused> {
        // SAFETY: plain call with pointers to locals that outlive it.
        let bytes =
            read(|data, size| unsafe { proxy_get_header_map_pairs(map_number(map), data, size) })?;
        pairs::read(bytes).ok_or(Refused(u32::MAX))
    }

    fn header(&self, map: Map, name: &[u8]) -> Option<Vec<u8>> {
        // SAFETY: the host reads the name before it returns; the rest are pointers to locals.
        read(|data, size| unsafe {
            proxy_get_header_map_value(map_number(map), name.as_ptr(), name.len(), data, size)
        })
        .ok()
    }

    fn add_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host copies both slices before it returns.
        done(unsafe {
            proxy_add_header_map_value(
                map_number(map),
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }

    fn set_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host copies both slices before it returns.
        done(unsafe {
            proxy_replace_header_map_value(
                map_number(map),
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }

    fn remove_header(&self, map: Map, name: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host reads the slice before it returns.
        done(unsafe { proxy_remove_header_map_value(map_number(map), name.as_ptr(), name.len()) })
    }

    fn response_body(&self, length: usize) -> Result<Vec<u8>, Refused> {
        // SAFETY: plain call with pointers to locals that outlive it.
        read(|data, size| unsafe { proxy_get_buffer_bytes(RESPONSE_BODY, 0, length, data, size) })
    }

    fn replace_response_body(&self, body: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host copies the slice before it returns.
        done(unsafe {
            proxy_set_buffer_bytes(RESPONSE_BODY, 0, usize::MAX >> 1, body.as_ptr(), body.len())
        })
    }

    fn prepend_response_body(&self, body: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host copies the slice before it returns.
        done(unsafe { proxy_set_buffer_bytes(RESPONSE_BODY, 0, 0, body.as_ptr(), body.len()) })
    }

    fn break_off(&self) -> Result<(), Refused> {
        // SAFETY: no pointers.
        done(unsafe { proxy_close_stream(RESPONSE_STREAM) })
    }

    fn reply(
        &self,
        status: u16,
        parts: &[&Fields],
        body: &[u8],
        details: &str,
    ) -> Result<(), Refused> {
        let mut headers = self.scratch.borrow_mut();
        pairs::write(parts, &mut headers);
        // SAFETY: the host copies all slices before it returns.
        done(unsafe {
            proxy_send_local_response(
                u32::from(status),
                details.as_ptr(),
                details.len(),
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                -1,
            )
        })
    }

    fn replace_headers(&self, map: Map, parts: &[&Fields]) -> Result<(), Refused> {
        let mut headers = self.scratch.borrow_mut();
        pairs::write(parts, &mut headers);
        // SAFETY: the host copies the slice before it returns.
        done(unsafe {
            proxy_set_header_map_pairs(map_number(map), headers.as_ptr(), headers.len())
        })
    }

    fn resume_request(&self) -> Result<(), Refused> {
        // SAFETY: no pointers.
        done(unsafe { proxy_continue_stream(REQUEST_STREAM) })
    }

    fn set_effective_context(&self, context: u32) -> Result<(), Refused> {
        // SAFETY: no pointers.
        done(unsafe { proxy_set_effective_context(context) })
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        let path = path.join("\0");
        // SAFETY: the host reads the path before it returns; the rest are pointers to locals.
        read(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }).ok()
    }

    fn call(
        &self,
        cluster: &str,
        head: &Fields,
        body: &[u8],
        timeout_ms: u64,
    ) -> Result<u32, Refused> {
        let (mut headers, mut no_trailers) = (Vec::new(), Vec::new());
        pairs::write(&[head], &mut headers);
        pairs::write(&[], &mut no_trailers);
        let mut token = 0;
        // SAFETY: the host copies all slices before it returns; the token is a local.
        done(unsafe {
            proxy_http_call(
                cluster.as_ptr(),
                cluster.len(),
                headers.as_ptr(),
                headers.len(),
                body.as_ptr(),
                body.len(),
                no_trailers.as_ptr(),
                no_trailers.len(),
                u32::try_from(timeout_ms).unwrap_or(u32::MAX),
                &raw mut token,
            )
        })
        .map(|()| token)
    }

    fn call_body(&self, length: usize) -> Result<Vec<u8>, Refused> {
        // SAFETY: plain call with pointers to locals that outlive it.
        read(|data, size| unsafe {
            proxy_get_buffer_bytes(CALL_RESPONSE_BODY, 0, length, data, size)
        })
    }

    fn open_stream(
        &self,
        cluster: &str,
        method: (&str, &str),
        metadata: &Fields,
    ) -> Result<u32, Refused> {
        streams::open(cluster, method, metadata)
    }

    fn send(&self, stream: u32, message: &[u8]) -> Result<(), Refused> {
        streams::send(stream, message)
    }

    fn close_stream(&self, stream: u32) {
        streams::close(stream);
    }

    fn stream_message(&self, length: usize) -> Result<Vec<u8>, Refused> {
        // SAFETY: plain call with pointers to locals that outlive it.
        read(|data, size| unsafe { proxy_get_buffer_bytes(STREAM_MESSAGE, 0, length, data, size) })
    }

    fn set_tick_period(&self, millis: u64) {
        // SAFETY: no pointers.
        unsafe { proxy_set_tick_period_milliseconds(u32::try_from(millis).unwrap_or(u32::MAX)) };
    }

    fn shared(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>) {
        let mut cas = 0;
        // SAFETY: the host reads the key before it returns; the rest are pointers to locals.
        let value = read(|data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
        });
        match value {
            Ok(value) => (Some(value).filter(|value| !value.is_empty()), Some(cas)),
            Err(_) => (None, None),
        }
    }

    fn swap_shared(&self, key: &str, value: &[u8], version: Option<u32>) -> Swap {
        let version = version.unwrap_or(ABSENT);
        // SAFETY: the host copies both slices before it returns.
        match unsafe {
            proxy_set_shared_data(
                key.as_ptr(),
                key.len(),
                value.as_ptr(),
                value.len(),
                version,
            )
        } {
            OK => Swap::Done,
            _ => Swap::Lost,
        }
    }

    fn set_shared(&self, key: &str, value: &[u8]) {
        // SAFETY: the host copies both slices before it returns.
        unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), 0) };
    }

    fn register_queue(&self, name: &str) -> Result<u32, Refused> {
        let mut token = 0;
        // SAFETY: the host reads the name before it returns; the token is a local.
        done(unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut token) })
            .map(|()| token)
    }

    fn enqueue(&self, queue: u32, message: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host copies the message before it returns.
        done(unsafe { proxy_enqueue_shared_queue(queue, message.as_ptr(), message.len()) })
    }

    fn dequeue(&self, queue: u32) -> Option<Vec<u8>> {
        // SAFETY: plain call with pointers to locals that outlive it.
        read(|data, size| unsafe { proxy_dequeue_shared_queue(queue, data, size) }).ok()
    }

    fn count(&self, name: &str, by: u64) {
        if let Some(id) = self.metric(COUNTER, name).filter(|_| by > 0) {
            // SAFETY: no pointers.
            unsafe { proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) };
        }
    }

    fn move_gauge(&self, name: &str, by: i64) {
        if let Some(id) = self.metric(GAUGE, name).filter(|_| by != 0) {
            // SAFETY: no pointers.
            unsafe { proxy_increment_metric(id, by) };
        }
    }

    fn record(&self, name: &str, value: u64) {
        if let Some(id) = self.metric(HISTOGRAM, name) {
            // SAFETY: no pointers.
            unsafe { proxy_record_metric(id, value) };
        }
    }

    fn log(&self, level: log::Level, line: &str) {
        let level = match level {
            log::Level::Error => 4,
            log::Level::Warn => 3,
            log::Level::Info => 2,
            log::Level::Debug => 1,
            log::Level::Trace => 0,
        };
        // SAFETY: the host reads the line before it returns.
        unsafe { proxy_log(level, line.as_ptr(), line.len()) };
    }
}
