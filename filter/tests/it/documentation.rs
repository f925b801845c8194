//! The configuration table is complete, and the shipped configurations are read.

use larder_cache_core::policy::{IDENTITY_FIELDS, UNKEYED_FIELDS};
use larder_filter::config::Config;

#[test]
fn every_member_that_is_read_is_in_the_table() {
    let document = include_str!("../../../docs/configuration.md");
    let refused = Config::parse(
        br#"{"x": 1, "store": {"x": 1}, "limits": {"x": 1}, "rules": [{"policy": {"x": 1}}]}"#,
    );
    let message = refused.unwrap_err();
    let mut members = 0;
    for list in message.split("known are ").skip(1) {
        for member in list.split(';').next().unwrap().split(", ") {
            members += 1;
            assert!(
                document.contains(member),
                "{member} is not in docs/configuration.md"
            );
        }
    }
    assert!(members > 20, "{message}");
}

#[test]
fn every_field_that_says_who_asks_or_selects_unnamed_is_listed() {
    let document = include_str!("../../../docs/configuration.md");
    let section = |name: &str| {
        document
            .split("\n## ")
            .find(|part| part.starts_with(name))
            .unwrap()
    };
    for (name, fields) in [
        ("Who asks", &IDENTITY_FIELDS[..]),
        ("Unkeyed fields", &UNKEYED_FIELDS[..]),
    ] {
        let missing: Vec<_> = fields
            .iter()
            .filter(|field| !section(name).contains(&format!("`{field}`")))
            .collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

#[test]
fn the_shipped_configurations_are_read() {
    for text in [
        include_str!("../../../envoy/filters/demo.json"),
        include_str!("../../../envoy/filters/default.json"),
        include_str!("../../../envoy/filters/rfc9111.json"),
    ] {
        Config::parse(text.as_bytes()).unwrap();
    }
}
