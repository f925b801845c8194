//! The `cache-control` query parameter that stands in for the origin's lifetimes, where a rule
//! allows it.
//!
//! `/data?id=123&cache-control=stale-while-revalidate=15,max-age=5`
//!
//! What this decides: its grammar, its canonical form (part of what selects a variant), and the
//! path that remains for the origin. What it leaves out: whether a rule allows it, and what the
//! directives mean (`reuse`).
//!
//! The parameter's name is matched undecoded and without case; its value may be percent-encoded.
//! `;` does not separate parameters, so a cache and an origin that disagree about `;` cannot be
//! played against each other.

use larder_contract::http_time::DeltaSeconds;
use larder_contract::ows::trim;

use crate::fields::split_unquoted;
use crate::stored_response::ReuseTerms;

/// Name of the query parameter.
pub const PARAMETER: &str = "cache-control";

/// The directives of one override.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryOverride {
    /// Never served stale (RFC 9111 §5.2.2.2).
    pub must_revalidate: bool,
    /// Freshness lifetime; without it the response has none.
    pub max_age: Option<DeltaSeconds>,
    /// RFC 5861 §3.
    pub stale_while_revalidate: Option<DeltaSeconds>,
    /// RFC 5861 §4.
    pub stale_if_error: Option<DeltaSeconds>,
}

/// What was wrong with an override: said to the client, who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedOverride {
    /// The directive as written, shortened to 64 characters; empty when the parameter as a whole is
    /// at fault.
    pub directive: String,
    /// What is wrong with it, in words.
    pub problem: &'static str,
}

/// A path freed of its override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Path and query without the parameter: what is keyed and what the origin gets.
    pub path: Vec<u8>,
    /// What the parameter said.
    pub directives: QueryOverride,
}

/// Takes the override out of `path`. `Ok(None)` when there is none.
pub fn take(path: &[u8]) -> Result<Option<Taken>, MalformedOverride> {
    let Some(question_mark) = path.iter().position(|&byte| byte == b'?') else {
        return Ok(None);
    };
    let (before, query) = path.split_at(question_mark);
    let query = query.get(1..).unwrap_or_default();
    let mut value = None;
    let mut kept: Vec<&[u8]> = Vec::new();
    for parameter in query.split(|&byte| byte == b'&') {
        let (name, rest) = split_at_equals(parameter);
        if !name.eq_ignore_ascii_case(PARAMETER.as_bytes()) {
            kept.push(parameter);
        } else if value.replace(rest.unwrap_or_default()).is_some() {
            return Err(malformed(b"", "the parameter is given twice"));
        }
    }
    let Some(value) = value else { return Ok(None) };
    let mut path = before.to_vec();
    if !kept.is_empty() {
        path.push(b'?');
        path.extend_from_slice(&kept.join(&b'&'));
    }
    Ok(Some(Taken {
        path,
        directives: QueryOverride::parse(&percent_decode(value)?)?,
    }))
}

impl QueryOverride {
    /// Reads the directives, in any order and case.
    pub fn parse(value: &[u8]) -> Result<Self, MalformedOverride> {
        let mut directives = Self::default();
        let mut any = false;
        for directive in split_unquoted(value, b',').map(trim) {
            if directive.is_empty() {
                return Err(malformed(b"", "an empty directive"));
            }
            directives.add(directive)?;
            any = true;
        }
        if any {
            Ok(directives)
        } else {
            Err(malformed(b"", "no directive"))
        }
    }

    fn add(&mut self, directive: &[u8]) -> Result<(), MalformedOverride> {
        let (name, argument) = split_at_equals(directive);
        let (name, argument) = (trim(name).to_ascii_lowercase(), argument.map(trim));
        let slot = match name.as_slice() {
            b"must-revalidate" if argument.is_some() => {
                return Err(malformed(directive, "must-revalidate takes no argument"));
            }
            b"must-revalidate" if self.must_revalidate => {
                return Err(malformed(directive, "given twice"));
            }
            b"must-revalidate" => {
                self.must_revalidate = true;
                return Ok(());
            }
            b"max-age" => &mut self.max_age,
            b"stale-while-revalidate" => &mut self.stale_while_revalidate,
            b"stale-if-error" => &mut self.stale_if_error,
            _ => return Err(malformed(directive, KNOWN)),
        };
        let argument = argument
            .ok_or_else(|| malformed(directive, "needs a number of seconds, as in max-age=5"))?;
        let secs = DeltaSeconds::parse(argument)
            .ok_or_else(|| malformed(directive, "the argument is not a whole number of seconds"))?;
        if slot.replace(secs).is_some() {
            Err(malformed(directive, "given twice"))
        } else {
            Ok(())
        }
    }

    /// The one spelling of these directives: equal overrides select the same variant however they
    /// were written.
    pub fn canonical(&self) -> String {
        let mut words = Vec::new();
        if self.must_revalidate {
            words.push("must-revalidate".to_owned());
        }
        for (name, secs) in [
            ("max-age", self.max_age),
            ("stale-while-revalidate", self.stale_while_revalidate),
            ("stale-if-error", self.stale_if_error),
        ] {
            words.extend(secs.map(|secs| format!("{name}={secs}")));
        }
        words.join(",")
    }

    /// What a response stored under this override says about its reuse, in place of the origin's
    /// own words.
    pub fn reuse_terms(&self) -> ReuseTerms {
        ReuseTerms {
            lifetime: self.max_age.unwrap_or_default(),
            stale_while_revalidate: self.stale_while_revalidate.unwrap_or_default(),
            stale_if_error: self.stale_if_error.unwrap_or_default(),
            must_revalidate: self.must_revalidate,
            no_cache: false,
        }
    }
}

const KNOWN: &str = "unknown directive; known are max-age, must-revalidate, stale-if-error and stale-while-revalidate";

fn malformed(directive: &[u8], problem: &'static str) -> MalformedOverride {
    let directive = String::from_utf8_lossy(directive)
        .chars()
        .take(64)
        .collect();
    MalformedOverride { directive, problem }
}

fn split_at_equals(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |&byte| byte == b'=');
    (parts.next().unwrap_or_default(), parts.next())
}

fn percent_decode(value: &[u8]) -> Result<Vec<u8>, MalformedOverride> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut two = [0; 1];
        let digits = tail
            .get(..2)
            .ok_or_else(|| malformed(value, "a percent sign without two hex digits"))?;
        hex::decode_to_slice(digits, &mut two)
            .map_err(|_| malformed(value, "a percent sign without two hex digits"))?;
        decoded.extend_from_slice(&two);
        rest = tail.get(2..).unwrap_or_default();
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(path: &str) -> (String, String) {
        let taken = take(path.as_bytes()).unwrap().unwrap();
        (
            String::from_utf8(taken.path).unwrap(),
            taken.directives.canonical(),
        )
    }

    #[test]
    fn the_parameter_is_taken_out_wherever_it_stands() {
        for (path, rest) in [
            ("/data?cache-control=max-age=5", "/data"),
            ("/data?id=1&cache-control=max-age=5", "/data?id=1"),
            ("/data?cache-control=max-age=5&id=1", "/data?id=1"),
            ("/data?a=1&cache-control=max-age=5&b=2", "/data?a=1&b=2"),
            ("/data?a&&Cache-Control=max-age%3D5&", "/data?a&&"),
        ] {
            assert_eq!(
                taken(path),
                (rest.to_owned(), "max-age=5".to_owned()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_without_the_parameter_is_left_alone() {
        for path in [
            "/",
            "/data",
            "/data?",
            "/data?id=1",
            "/data?x-cache-control=1",
            "/data?a=1;cache-control=max-age=5",
            "/data?cache%2Dcontrol=max-age=5",
            "/cache-control=max-age=5",
        ] {
            assert_eq!(take(path.as_bytes()), Ok(None), "{path}");
        }
    }

    #[test]
    fn order_case_and_encoding_do_not_change_the_canonical_form() {
        let expected = "max-age=5,stale-while-revalidate=15";
        for value in [
            "stale-while-revalidate=15,max-age=5",
            "max-age=5,stale-while-revalidate=15",
            "Max-Age=005,STALE-WHILE-REVALIDATE=15",
            "max-age%3D5%2C%20stale-while-revalidate%3d15",
        ] {
            assert_eq!(
                taken(&format!("/?cache-control={value}")).1,
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (value, directive) in [
            ("", ""),
            (",", ""),
            ("max-age", "max-age"),
            ("max-age=", "max-age="),
            ("max-age=-1", "max-age=-1"),
            ("max-age=1.5", "max-age=1.5"),
            ("max-age=5,max-age=6", "max-age=6"),
            ("max-age=5,no-store", "no-store"),
            ("must-revalidate=1", "must-revalidate=1"),
            ("stale-if-error=x,max-age=5", "stale-if-error=x"),
            ("max-age=5%2", "max-age=5%2"),
        ] {
            let error = take(format!("/?cache-control={value}").as_bytes()).unwrap_err();
            assert_eq!(error.directive, directive, "{value}");
        }
        assert!(take(b"/?cache-control=max-age=1&cache-control=max-age=2").is_err());
    }

    proptest! {
        #[test]
        fn any_path_is_read_without_a_panic(path in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = take(&path);
            let _ = take(&[b"/?cache-control=".as_slice(), &path].concat());
        }

        #[test]
        fn the_canonical_form_reads_back_as_the_same_override(
            must_revalidate: bool, max_age in proptest::option::of(0u64..1 << 31), swr in proptest::option::of(0u64..1 << 31),
        ) {
            let directives = QueryOverride {
                must_revalidate,
                max_age: max_age.map(DeltaSeconds::new),
                stale_while_revalidate: swr.map(DeltaSeconds::new),
                stale_if_error: None,
            };
            let canonical = directives.canonical();
            prop_assume!(!canonical.is_empty());
            prop_assert_eq!(QueryOverride::parse(canonical.as_bytes()), Ok(directives));
        }
    }
}
