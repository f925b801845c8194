//! What goes wrong when processes are started and used.

/// Why the system does not run. One line that names what is wrong and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StackError(pub String);

impl From<std::io::Error> for StackError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<StackError> for String {
    fn from(error: StackError) -> Self {
        error.0
    }
}

/// What starting and using processes gives.
pub type Result<T> = std::result::Result<T, StackError>;
