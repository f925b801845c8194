//! What must not be shown: neither in a log nor in a message about mistakes.

/// The token that is presented to the sidecar.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The environment variable that gives it where the configuration does not.
    pub const VARIABLE: &str = "LARDER_TOKEN";

    /// At least 16 visible ASCII characters, as the sidecar wants them; a comma separates tokens
    /// there.
    pub fn new(text: &str) -> Option<Self> {
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',');
        (text.len() >= 16 && plain).then(|| Self(text.to_owned()))
    }

    /// The value of `Authorization`.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
