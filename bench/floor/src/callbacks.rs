//! Proxy-wasm's ABI 0.2.1: the callbacks that Envoy calls, and the host's functions that they need.
#![allow(
    unsafe_code,
    reason = "the host's ABI is C functions over pointers into this module's memory"
)]

use std::ptr::null_mut;
use std::sync::OnceLock;

use crate::answer::Answer;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        length: usize,
        data: *mut *mut u8,
        size: *mut usize,
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
}

const PLUGIN_CONFIGURATION: u32 = 7;
const TRUE: u32 = 1;
#[cfg(feature = "two-steps")]
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;
const DETAILS: &[u8] = b"floor";
/// What stands in for the content in two steps: not empty, or no content would pass.
const STAND_IN: &[u8] = b"-";

static ANSWER: OnceLock<Answer> = OnceLock::new();

/// Takes over a buffer that the host has allocated in this module's memory.
fn taken(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host allocated `data` with `proxy_on_memory_allocate` below, which makes a
    // `Vec<u8>` of exactly `size` bytes and forgets it; nobody else holds it.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut room = Vec::with_capacity(size);
    let data = room.as_mut_ptr();
    std::mem::forget(room);
    data
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> u32 {
    TRUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root: u32, _size: usize) -> u32 {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: plain call with pointers to locals that outlive it.
    unsafe {
        proxy_get_buffer_bytes(
            PLUGIN_CONFIGURATION,
            0,
            usize::MAX >> 1,
            &raw mut data,
            &raw mut size,
        )
    };
    let answer = Answer::read(&taken(data, size));
    u32::from(answer.is_some_and(|answer| ANSWER.set(answer).is_ok()))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_id: u32, _num_headers: u32, _end_of_stream: u32) -> u32 {
    #[cfg(feature = "reads")]
    reads::what_a_cache_reads();
    let Some(answer) = ANSWER.get() else {
        return PAUSE;
    };
    let (content, head): (&[u8], &[u8]) = if answer.two_steps {
        (STAND_IN, &[])
    } else {
        (&answer.content, &answer.head)
    };
    // SAFETY: the host copies all slices before it returns.
    unsafe {
        proxy_send_local_response(
            200,
            DETAILS.as_ptr(),
            DETAILS.len(),
            content.as_ptr(),
            content.len(),
            head.as_ptr(),
            head.len(),
            -1,
        )
    };
    PAUSE
}

#[cfg(feature = "two-steps")]
mod second_step {
    use super::{ANSWER, CONTINUE};

    const RESPONSE_MAP: u32 = 2;
    const RESPONSE_BODY: u32 = 1;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
        fn proxy_set_buffer_bytes(
            buffer: u32,
            start: usize,
            length: usize,
            data: *const u8,
            size: usize,
        ) -> u32;
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_headers(
        _id: u32,
        _num_headers: u32,
        _end_of_stream: u32,
    ) -> u32 {
        if let Some(answer) = ANSWER.get().filter(|answer| answer.two_steps) {
            // SAFETY: the host copies the slice before it returns.
            unsafe {
                proxy_set_header_map_pairs(RESPONSE_MAP, answer.head.as_ptr(), answer.head.len())
            };
        }
        CONTINUE
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_body(_id: u32, _size: u32, _end_of_stream: u32) -> u32 {
        if let Some(answer) = ANSWER.get().filter(|answer| answer.two_steps) {
            let content = &answer.content;
            // SAFETY: the host copies the slice before it returns.
            unsafe {
                proxy_set_buffer_bytes(
                    RESPONSE_BODY,
                    0,
                    usize::MAX >> 1,
                    content.as_ptr(),
                    content.len(),
                )
            };
        }
        CONTINUE
    }
}

#[cfg(feature = "reads")]
mod reads {
    use std::hint::black_box;
    use std::ptr::null_mut;
    use std::sync::OnceLock;
    use std::time::SystemTime;

    use super::{CONTINUE, taken};

    const REQUEST_MAP: u32 = 0;
    const QUEUE: &[u8] = b"floor";

    static QUEUE_TOKEN: OnceLock<u32> = OnceLock::new();

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        fn proxy_register_shared_queue(name: *const u8, size: usize, token: *mut u32) -> u32;
        fn proxy_dequeue_shared_queue(token: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    }

    /// The request's fields, the clock, and what others have sent.
    pub(super) fn what_a_cache_reads() {
        let queue = *QUEUE_TOKEN.get_or_init(|| {
            let mut token = 0;
            // SAFETY: the host reads the name before it returns; the token is a local.
            unsafe { proxy_register_shared_queue(QUEUE.as_ptr(), QUEUE.len(), &raw mut token) };
            token
        });
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: plain call with pointers to locals that outlive it.
        unsafe { proxy_dequeue_shared_queue(queue, &raw mut data, &raw mut size) };
        drop(taken(data, size));
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: plain call with pointers to locals that outlive it.
        unsafe { proxy_get_header_map_pairs(REQUEST_MAP, &raw mut data, &raw mut size) };
        drop(black_box(taken(data, size)));
        black_box(SystemTime::now());
    }

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_context_create(_id: u32, _parent: u32) {}

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_delete(_id: u32) {}

    #[unsafe(no_mangle)]
    extern "C" fn proxy_on_response_trailers(_id: u32, _num_trailers: u32) -> u32 {
        CONTINUE
    }
}
