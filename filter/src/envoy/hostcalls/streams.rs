//! gRPC streams of our own.

use larder_cache_core::fields::Fields;

use super::done;
use crate::host::Refused;
use crate::pairs;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_grpc_stream(
        service: *const u8,
        service_size: usize,
        service_name: *const u8,
        service_name_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_send(token: u32, message: *const u8, size: usize, end: u32) -> u32;
    fn proxy_grpc_close(token: u32) -> u32;
}

pub(super) fn open(
    cluster: &str,
    (service, method): (&str, &str),
    metadata: &Fields,
) -> Result<u32, Refused> {
    let (target, mut pairs_bytes, mut token) = (grpc_service(cluster), Vec::new(), 0);
    pairs::write(&[metadata], &mut pairs_bytes);
    // SAFETY: the host copies all slices before it returns; the token is a local.
    done(unsafe {
        proxy_grpc_stream(
            target.as_ptr(),
            target.len(),
            service.as_ptr(),
            service.len(),
            method.as_ptr(),
            method.len(),
            pairs_bytes.as_ptr(),
            pairs_bytes.len(),
            &raw mut token,
        )
    })
    .map(|()| token)
}

pub(super) fn send(token: u32, message: &[u8]) -> Result<(), Refused> {
    // SAFETY: the host copies the slice before it returns.
    done(unsafe { proxy_grpc_send(token, message.as_ptr(), message.len(), 0) })
}

pub(super) fn close(token: u32) {
    // SAFETY: no pointers. A token that Envoy does not know changes nothing.
    unsafe { proxy_grpc_close(token) };
}

/// `GrpcService { envoy_grpc: { cluster_name } }` as protobuf. Envoy takes a bare name, too, but
/// some names can be read as another message.
fn grpc_service(cluster: &str) -> Vec<u8> {
    let name = field_one(cluster.as_bytes());
    field_one(&name)
}

/// Field 1, a length-delimited one.
fn field_one(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x0a];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap_or(0));
    bytes.extend_from_slice(content);
    bytes
}
