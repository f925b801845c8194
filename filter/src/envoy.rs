//! Envoy's callbacks, handed to the VM. wasm32 only.
//!
//! The SDK keeps the VM and its root contexts. What concerns one stream does not pass through it:
//! its contexts and look-ups took 1 µs of a hit's 22. Those callbacks are the `larder_on_…`
//! functions here; `scripts/link-exports` puts them in the place of the SDK's once the module is
//! linked.
#![allow(
    unsafe_code,
    reason = "exports of the host's ABI, and the SDK's own, which these stand in front of"
)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proxy_wasm::traits::{Context, RootContext};
use proxy_wasm::types::LogLevel;

use crate::answer::Passage;
use crate::config::Config;
use crate::host::Host as _;
use crate::quick_ticks::TICK_MS;
use crate::stream::Action;
use crate::vm::Vm;

mod hostcalls;

use hostcalls::Envoy;

thread_local! {
    static VM: RefCell<Vm<Envoy>> = RefCell::new(Vm::new(Envoy::default()));
    /// The root contexts alive; several while an old configuration drains.
    static ROOTS: RefCell<Vec<(u32, Option<Rc<Config>>)>> = const { RefCell::new(Vec::new()) };
    /// The root of the stream that began last: Envoy hands over its request's head right after.
    static NEWEST: Cell<u32> = const { Cell::new(0) };
    /// How the answer given last should pass, if it was given at once: Envoy hands over its passage
    /// right after.
    static ANSWERED: Cell<Passage> = const { Cell::new(Passage { stream: 0, lines: 0, length: 0 }) };
}

fn with_vm<R>(act: impl FnOnce(&mut Vm<Envoy>) -> R) -> Option<R> {
    // Envoy defers what would call back into us; should it ever not, the inner call is skipped, not
    // the VM lost.
    VM.with(|vm| vm.try_borrow_mut().ok().map(|mut vm| act(&mut vm)))
}

fn config_of(root: u32) -> Option<Rc<Config>> {
    ROOTS.with_borrow(|roots| {
        roots
            .iter()
            .find(|(id, _)| *id == root)
            .and_then(|(_, config)| config.clone())
    })
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(Root { id }));
}}

struct Root {
    id: u32,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = hostcalls::plugin_configuration();
        let config = with_vm(|vm| vm.on_configure(&text)).flatten();
        let accepted = config.is_some();
        ROOTS.with_borrow_mut(|roots| {
            if let Some(root) = roots.iter_mut().find(|(id, _)| *id == self.id) {
                root.1 = config;
            }
        });
        Envoy::default().set_tick_period(TICK_MS);
        accepted
    }

    fn on_tick(&mut self) {
        with_vm(|vm| {
            vm.on_root(self.id);
            vm.on_tick();
        });
        hostcalls::restore_context(self.id);
    }

    fn on_queue_ready(&mut self, _queue: u32) {
        with_vm(|vm| {
            vm.on_root(self.id);
            vm.on_queue_ready();
        });
        hostcalls::restore_context(self.id);
    }
}

unsafe extern "C" {
    /// The SDK's, for roots.
    safe fn proxy_on_context_create(id: u32, parent: u32);
    /// The SDK's, for roots.
    safe fn proxy_on_delete(id: u32);
}

/// A context begins: a root's, which has no parent, or a stream's.
#[unsafe(no_mangle)]
extern "C" fn larder_on_context_create(id: u32, parent: u32) {
    if parent == 0 {
        ROOTS.with_borrow_mut(|roots| roots.push((id, None)));
        proxy_on_context_create(id, parent);
    } else {
        NEWEST.set(parent);
    }
}

/// A context is over, whatever the reason. Envoy still answers questions about its stream.
#[unsafe(no_mangle)]
extern "C" fn larder_on_delete(id: u32) {
    let was_root = ROOTS.with_borrow_mut(|roots| {
        let before = roots.len();
        roots.retain(|(root, _)| *root != id);
        roots.len() != before
    });
    if was_root {
        with_vm(|vm| vm.on_root_gone(id));
        proxy_on_delete(id);
    } else {
        with_vm(|vm| vm.on_done(id));
    }
}

/// A request's head.
#[unsafe(no_mangle)]
extern "C" fn larder_on_request_headers(id: u32, _num_headers: u32, end_of_stream: u32) -> u32 {
    let root = NEWEST.get();
    let Some(config) = config_of(root) else {
        return wasm(Action::Continue);
    };
    let action = with_vm(|vm| {
        vm.on_stream(root);
        let action = vm.on_request_headers(id, &config, end_of_stream != 0);
        if action == Action::Pause {
            ANSWERED.set(vm.expected_passage(id).unwrap_or_default());
        }
        action
    });
    wasm(action.unwrap_or(Action::Continue))
}

/// A piece of a request's content.
#[unsafe(no_mangle)]
extern "C" fn larder_on_request_body(id: u32, size: u32, end_of_stream: u32) -> u32 {
    let action = with_vm(|vm| {
        let action = vm.on_request_body(id, size as usize, end_of_stream != 0);
        if action == Action::Pause {
            ANSWERED.set(vm.expected_passage(id).unwrap_or_default());
        }
        action
    });
    wasm(action.unwrap_or(Action::Continue))
}

/// A request's trailers.
#[unsafe(no_mangle)]
extern "C" fn larder_on_request_trailers(id: u32, _num_trailers: u32) -> u32 {
    wasm(with_vm(|vm| vm.on_request_trailers(id)).unwrap_or(Action::Continue))
}

/// A response's head.
#[unsafe(no_mangle)]
extern "C" fn larder_on_response_headers(id: u32, num_headers: u32, end_of_stream: u32) -> u32 {
    let expected = ANSWERED.get();
    if expected.stream == id {
        if expected.lines == num_headers {
            return wasm(Action::Continue);
        }
        ANSWERED.set(Passage::default());
        with_vm(|vm| vm.correct_passage(id));
    }
    wasm(with_vm(|vm| vm.on_response_headers(id, end_of_stream != 0)).unwrap_or(Action::Continue))
}

/// A piece of a response's content.
#[unsafe(no_mangle)]
extern "C" fn larder_on_response_body(id: u32, size: u32, end_of_stream: u32) -> u32 {
    let expected = ANSWERED.get();
    if expected.stream == id {
        if expected.length != size {
            // Its head is out already; the next one's will be right.
            with_vm(|vm| vm.correct_passage(id));
        }
        return wasm(Action::Continue);
    }
    let action = with_vm(|vm| vm.on_response_body(id, size as usize, end_of_stream != 0));
    wasm(action.unwrap_or(Action::Continue))
}

/// A response's trailers.
#[unsafe(no_mangle)]
extern "C" fn larder_on_response_trailers(id: u32, _num_trailers: u32) -> u32 {
    wasm(with_vm(|vm| vm.on_response_trailers(id)).unwrap_or(Action::Continue))
}

/// A stream is over, and what it sent and got can be read once more.
#[unsafe(no_mangle)]
extern "C" fn larder_on_log(id: u32) {
    if ANSWERED.get().stream != id {
        with_vm(|vm| vm.on_log(id));
    }
}

/// The answer to a call of our own.
#[unsafe(no_mangle)]
extern "C" fn larder_on_http_call_response(
    root: u32,
    token: u32,
    num_headers: u32,
    size: u32,
    _num_trailers: u32,
) {
    with_vm(|vm| {
        vm.on_root(root);
        vm.on_call_response(token, num_headers as usize, size as usize);
    });
    hostcalls::restore_context(root);
}

/// A message on a gRPC stream of our own.
#[unsafe(no_mangle)]
extern "C" fn larder_on_grpc_receive(root: u32, stream: u32, size: u32) {
    with_vm(|vm| {
        vm.on_root(root);
        vm.on_stream_message(stream, size as usize);
    });
    hostcalls::restore_context(root);
}

/// A gRPC stream of our own has ended.
#[unsafe(no_mangle)]
extern "C" fn larder_on_grpc_close(root: u32, stream: u32, status: u32) {
    with_vm(|vm| {
        vm.on_root(root);
        vm.on_stream_closed(stream, status);
    });
    hostcalls::restore_context(root);
}

/// As proxy-wasm says it.
fn wasm(action: Action) -> u32 {
    match action {
        Action::Continue => 0,
        Action::Pause => 1,
    }
}
