//! Selecting fields as the store compares them: by tokens, so that it never sees a value (RFC 9111
//! §4.1).

use std::collections::BTreeMap;

/// Stands for the value of one selecting field, so that the store can compare values without seeing
/// them: 32 hex digits of SHA-256. A field that is absent has no token.
pub type SelectorToken = String;

/// Selecting fields as the store sees them: field name in lower case to token.
pub type Selectors = BTreeMap<String, SelectorToken>;
