//! A request and a response head, as the rules look at them.
//!
//! What this decides: nothing. Pseudo-fields (`:method`, `:path` …) stay among the fields, as Envoy hands them over, so
//! that a request is read without copying it.

use crate::fields::Fields;

/// The head of a presented request (RFC 9111 §4): its fields, pseudo-fields among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// All fields, `:method`, `:scheme`, `:authority` and `:path` included.
    pub fields: Fields,
    /// Whether content may follow the head.
    pub has_content: bool,
}

impl Request {
    /// A request for `path` at `authority`, for tests and tools.
    pub fn new(method: &str, authority: &str, path: &str) -> Self {
        let fields =
            Fields::from_pairs([(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)]);
        Self { fields, has_content: false }
    }

    /// The request with one more field line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.append(name.as_bytes(), value.as_bytes());
        self
    }

    /// The method, case-sensitive (RFC 9110 §9.1).
    pub fn method(&self) -> &[u8] {
        self.pseudo(":method")
    }

    /// `http` or `https`, as the client came.
    pub fn scheme(&self) -> &[u8] {
        self.pseudo(":scheme")
    }

    /// Host and port (RFC 9110 §7.2).
    pub fn authority(&self) -> &[u8] {
        self.pseudo(":authority")
    }

    /// Path and query, exactly as received.
    pub fn path(&self) -> &[u8] {
        self.pseudo(":path")
    }

    fn pseudo(&self, name: &str) -> &[u8] {
        self.fields.get(name).unwrap_or_default()
    }
}

/// Status code and fields of a response. `:status` is not among the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// HTTP status code, 100 to 999.
    pub status: u16,
    /// The fields as received, hop-by-hop ones included.
    pub fields: Fields,
}

impl ResponseHead {
    /// A response head from `(name, value)` pairs, for tests and tools.
    pub fn new(status: u16, pairs: &[(&str, &str)]) -> Self {
        Self { status, fields: Fields::from_pairs(pairs.iter().copied()) }
    }
}
