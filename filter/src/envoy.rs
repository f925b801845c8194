//! Envoy's callbacks, handed to the VM. wasm32 only.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action as WasmAction, ContextType, LogLevel};

use crate::config::Config;
use crate::stream::Action;
use crate::vm::{TICK_MS, Vm};

mod hostcalls;

use hostcalls::Envoy;

thread_local! {
    static VM: RefCell<Vm<Envoy>> = RefCell::new(Vm::new(Envoy::default()));
}

fn with_vm<R>(act: impl FnOnce(&mut Vm<Envoy>) -> R) -> Option<R> {
    // Envoy defers what would call back into us; should it ever not, the inner call is skipped, not the VM lost.
    VM.with(|vm| vm.try_borrow_mut().ok().map(|mut vm| act(&mut vm)))
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(Root { id, config: None }));
}}

struct Root {
    id: u32,
    config: Option<Rc<Config>>,
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, body_size: usize, _num_trailers: usize) {
        with_vm(|vm| vm.on_call_response(token, num_headers, body_size));
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = hostcalls::plugin_configuration();
        self.config = with_vm(|vm| vm.on_configure(&text)).flatten();
        hostcalls::set_tick_period(Duration::from_millis(TICK_MS));
        self.config.is_some()
    }

    fn on_tick(&mut self) {
        with_vm(Vm::on_tick);
        hostcalls::restore_context(self.id);
    }

    fn on_queue_ready(&mut self, _queue: u32) {
        with_vm(Vm::on_queue_ready);
        hostcalls::restore_context(self.id);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let config = self.config.clone()?;
        with_vm(|vm| vm.on_stream(self.id));
        Some(Box::new(Http { id, config }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Http {
    id: u32,
    config: Rc<Config>,
}

impl Context for Http {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, body_size: usize, _num_trailers: usize) {
        with_vm(|vm| vm.on_call_response(token, num_headers, body_size));
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> WasmAction {
        let action = with_vm(|vm| vm.on_request_headers(self.id, &self.config, end_of_stream));
        wasm(action.unwrap_or(Action::Continue))
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> WasmAction {
        let action = with_vm(|vm| vm.on_response_headers(self.id, end_of_stream));
        wasm(action.unwrap_or(Action::Continue))
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> WasmAction {
        let action = with_vm(|vm| vm.on_response_body(self.id, body_size, end_of_stream));
        wasm(action.unwrap_or(Action::Continue))
    }

    fn on_http_response_trailers(&mut self, _num_trailers: usize) -> WasmAction {
        let action = with_vm(|vm| vm.on_response_trailers(self.id));
        wasm(action.unwrap_or(Action::Continue))
    }

    fn on_log(&mut self) {
        with_vm(|vm| vm.on_done(self.id));
    }
}

fn wasm(action: Action) -> WasmAction {
    match action {
        Action::Continue => WasmAction::Continue,
        Action::Pause => WasmAction::Pause,
    }
}
