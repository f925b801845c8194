//! RFC 9111 as pure code: no I/O, no clock, no Envoy.
