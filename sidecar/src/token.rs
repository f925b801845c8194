//! Who may ask: tokens, told apart in constant time, and a bound on those who try without.
//!
//! What this decides: that every path of the contract asks for a token where there is one, except
//! purging, which asks for the operator's; how many attempts a peer has; and what is logged of
//! them. The right token is never held back by someone else's wrong ones, not even from behind the
//! same address.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::listening::Peer;

/// A secret that is presented as `Authorization: Bearer …`. Only its digest is kept.
#[derive(Clone, Debug)]
pub struct Token([u8; 32]);

impl Token {
    /// From the setting.
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether `Authorization: Bearer` carries it; in the same time whatever differs.
    pub(crate) fn is_presented(&self, headers: &HeaderMap) -> bool {
        self.is(&presented(headers)).into()
    }

    fn is(&self, digest: &[u8; 32]) -> Choice {
        self.0.ct_eq(digest)
    }
}

fn presented(headers: &HeaderMap) -> [u8; 32] {
    let value = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes())
        .unwrap_or_default();
    Sha256::digest(value.strip_prefix(b"Bearer ").unwrap_or_default()).into()
}

/// A shorter one is refused.
const MIN_TOKEN: usize = 16;
/// So many are valid at once: the new one, and the old one until everybody has the new.
const MOST_TOKENS: usize = 2;

/// The tokens that Envoys present. Cheap to clone; all clones see a change.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<RwLock<Vec<Token>>>);

impl Tokens {
    /// One token, or two with a comma or a line's end between them; none in an empty text. The
    /// error names the setting and shows no token.
    pub fn parse(setting: &str, text: &str) -> Result<Self, String> {
        Ok(Self(Arc::new(RwLock::new(read(setting, text)?))))
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Whether one of them is presented; in the same time whichever it is.
    pub(crate) fn are_presented(&self, headers: &HeaderMap) -> bool {
        let digest = presented(headers);
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tokens
            .iter()
            .fold(Choice::from(0), |any, token| any | token.is(&digest))
            .into()
    }

    /// Takes over what a file says now, whenever it changes: a token is exchanged without a
    /// restart. A file that cannot be read, or says nothing, changes nothing.
    pub async fn follow_file(self, setting: &'static str, path: PathBuf) {
        const AGAIN: Duration = Duration::from_secs(2);
        let mut known = std::fs::read_to_string(&path).unwrap_or_default();
        loop {
            tokio::time::sleep(AGAIN).await;
            let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
            if text == known {
                continue;
            }
            match read(setting, &text) {
                Ok(tokens) if !tokens.is_empty() => {
                    tracing::info!("{setting}: {} token(s) are valid now", tokens.len());
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
                }
                Ok(_) => tracing::warn!(
                    "{setting}: {} is empty; the tokens stay as they are",
                    path.display()
                ),
                Err(problem) => tracing::warn!("{problem}; the tokens stay as they are"),
            }
            known = text;
        }
    }

    /// Reads a file.
    pub fn from_file(setting: &str, path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{setting}: {} cannot be read: {error}", path.display()))?;
        let tokens = Self::parse(setting, &text)?;
        if tokens.is_empty() {
            Err(format!("{setting}: {} is empty", path.display()))
        } else {
            Ok(tokens)
        }
    }
}

fn read(setting: &str, text: &str) -> Result<Vec<Token>, String> {
    let tokens: Vec<&str> = text
        .split([',', '\n', '\r'])
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .collect();
    if tokens.len() > MOST_TOKENS {
        return Err(format!(
            "{setting}: at most {MOST_TOKENS} tokens are valid at once, and {} are given",
            tokens.len()
        ));
    }
    if tokens
        .iter()
        .any(|token| token.len() < MIN_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(format!(
            "{setting}: a token has at least {MIN_TOKEN} visible ASCII characters; openssl rand -hex 32 makes one"
        ));
    }
    Ok(tokens.into_iter().map(Token::new).collect())
}

/// What a refused attempt is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `401`
    Unauthorised,
    /// `429`: this peer has tried too often.
    TooOften,
}

/// Attempts without the right token, by peer.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<Peer, Attempt>>);

#[derive(Debug)]
struct Attempt {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// So many attempts in a period are answered; later ones are turned away.
    const MOST: u32 = 20;
    const PERIOD: Duration = Duration::from_secs(60);
    /// Peers remembered; beyond it, those of ended periods go, and then all.
    const MOST_PEERS: usize = 4096;

    /// One more attempt: what it is answered with, and the line to log, if one is due.
    pub fn refuse(
        &self,
        peer: Peer,
        path: &str,
        setting: &str,
        now: Instant,
    ) -> (Refused, Option<String>) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= Self::MOST_PEERS && !attempts.contains_key(&peer) {
            attempts.retain(|_, attempt| now.duration_since(attempt.since) < Self::PERIOD);
            if attempts.len() >= Self::MOST_PEERS {
                attempts.clear();
            }
        }
        let attempt = attempts.entry(peer).or_insert(Attempt {
            since: now,
            count: 0,
        });
        let mut before = None;
        if now.duration_since(attempt.since) >= Self::PERIOD {
            before = Some(attempt.count);
            *attempt = Attempt {
                since: now,
                count: 0,
            };
        }
        attempt.count = attempt.count.saturating_add(1);
        let line = (attempt.count == 1).then(|| {
            let more = before
                .filter(|&count| count > 1)
                .map_or(String::new(), |count| {
                    format!("; {count} in the period before")
                });
            format!("refused {peer}, who asks for {path} without a valid token ({setting}){more}")
        });
        let line = line.or_else(|| {
            (attempt.count == Self::MOST + 1).then(|| {
                format!(
                    "{peer} is turned away: more than {} attempts without a valid token",
                    Self::MOST
                )
            })
        });
        (
            if attempt.count > Self::MOST {
                Refused::TooOften
            } else {
                Refused::Unauthorised
            },
            line,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearing(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn only_the_token_itself_opens() {
        let token = Token::new("secret");
        for (value, opens) in [
            ("Bearer secret", true),
            ("Bearer secre", false),
            ("Bearer ", false),
            ("secret", false),
            ("bearer secret", false),
        ] {
            assert_eq!(token.is_presented(&bearing(value)), opens, "{value}");
        }
        assert!(!token.is_presented(&HeaderMap::new()));
    }

    #[test]
    fn two_are_valid_at_once_and_nothing_else_is() {
        let (old, new) = ("an old token of length", "a-new-token-of-length");
        assert!(
            Tokens::parse("LARDER_TOKEN", old)
                .unwrap_err()
                .contains("visible"),
            "no spaces"
        );
        let old = old.replace(' ', "-");
        for text in [
            format!("{new},{old}"),
            format!("{new}\n{old}\n"),
            format!(" {new} ,\r\n{old}"),
        ] {
            let tokens = Tokens::parse("LARDER_TOKEN", &text).unwrap();
            for (token, valid) in [
                (new, true),
                (old.as_str(), true),
                ("another-token-of-length", false),
                ("", false),
            ] {
                assert_eq!(
                    tokens.are_presented(&bearing(&format!("Bearer {token}"))),
                    valid,
                    "{token}"
                );
            }
        }
        assert!(Tokens::parse("LARDER_TOKEN", " \n").unwrap().is_empty());
        for wrong in [
            "short",
            "1234567890123456,1234567890123457,1234567890123458",
        ] {
            let problem = Tokens::parse("LARDER_TOKEN", wrong).unwrap_err();
            assert!(
                problem.starts_with("LARDER_TOKEN") && !problem.contains(wrong),
                "{problem}"
            );
        }
    }

    #[test]
    fn attempts_are_bounded_for_each_peer_and_logged_once_a_period() {
        let attempts = Attempts::default();
        let (peer, other) = (Peer(Some([10, 0, 0, 1].into())), Peer(None));
        let begin = Instant::now();
        let tried: Vec<_> = (0..30)
            .map(|_| attempts.refuse(peer, "/v1/events", "LARDER_TOKEN", begin))
            .collect();
        assert_eq!(
            tried
                .iter()
                .filter(|(refused, _)| *refused == Refused::Unauthorised)
                .count(),
            20
        );
        let lines: Vec<&String> = tried.iter().filter_map(|(_, line)| line.as_ref()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.contains("10.0.0.1")));
        assert_eq!(
            attempts.refuse(other, "/", "LARDER_TOKEN", begin).0,
            Refused::Unauthorised
        );
        let (refused, line) = attempts.refuse(peer, "/", "LARDER_TOKEN", begin + Attempts::PERIOD);
        assert_eq!(refused, Refused::Unauthorised);
        assert!(line.unwrap().contains("30 in the period before"));
    }

    #[test]
    fn peers_remembered_are_bounded() {
        let attempts = Attempts::default();
        let begin = Instant::now();
        for n in 0..10_000u32 {
            attempts.refuse(
                Peer(Some(std::net::Ipv4Addr::from(n).into())),
                "/",
                "LARDER_TOKEN",
                begin,
            );
        }
        assert!(attempts.0.lock().unwrap().len() <= Attempts::MOST_PEERS);
    }
}
