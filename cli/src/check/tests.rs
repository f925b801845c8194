use std::collections::BTreeSet;
use std::fs;

use larder_stack::stack::project_root;
use serde_json::Value;

use super::*;

fn lines(text: &str, strict: bool) -> Vec<String> {
    Findings::of(text).lines("f", strict)
}

#[test]
fn every_mistake_is_told_with_its_line_and_column() {
    let text = r#"{
  "stor": 1,
  "rules": [
    { "match": { "path_regex": "(" },
      "policy": { "cache": "yes", "status_lifetimes_s": { "4x.4": 1 } } },
    {}, {"policy": {"tell": "trusted"}}
  ]
}"#;
    let told = lines(text, false);
    let places: Vec<&str> = told
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "f:2:3", "f:4:18", "f:5:19", "f:5:59", "f:6:5", "f:6:9", "f:6:21"
        ],
        "{told:#?}"
    );
    assert!(told.iter().all(|line| line.contains(": error: ")));
    assert_eq!(
        Findings::of(text).verdict(false).unwrap_err(),
        "is no configuration: 7 mistakes"
    );
}

#[test]
fn what_is_not_json_is_told_where_it_ceases_to_be() {
    assert_eq!(
        lines("{\n  \"rules\": [}\n", false),
        ["f:2:13: error: not JSON: expected value"]
    );
    for text in ["{\"a\": 1,}", "// c\n{}", "{'a': 1}"] {
        assert_eq!(lines(text, false).len(), 1, "the filter refuses it: {text}");
    }
}

#[test]
fn a_warning_is_an_error_under_strict_alone() {
    let text = "{\"rules\": [{\"policy\": {\"allow_purge\": true, \"keep_s\": 1, \"keep_s\": 2}}]}";
    let told = lines(text, false);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("f:1:24: warning: rules[0].policy.allow_purge "));
    assert!(told[1].contains("keep_s is given twice"));
    assert!(lines(text, true)[0].contains(": error: "));
    let findings = Findings::of(text);
    assert_eq!(findings.verdict(false).unwrap(), ", with 2 warnings");
    assert!(findings.verdict(true).is_err());
    assert!(Findings::of("{}").verdict(true).is_ok());
}

fn schema() -> Value {
    serde_json::from_str(&schema::text()).unwrap()
}

#[test]
fn the_schema_in_docs_is_the_one_that_is_generated() {
    let written = fs::read_to_string(project_root().join("docs/config.schema.json"));
    assert_eq!(
        written.unwrap_or_default(),
        schema::text(),
        "run: larder check --schema > docs/config.schema.json"
    );
}

#[test]
fn every_shipped_configuration_is_one_by_parser_and_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut files = 0;
    for entry in fs::read_dir(project_root().join("envoy/filters")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let problems: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| error.to_string())
            .collect();
        assert!(problems.is_empty(), "{}: {problems:?}", path.display());
        assert!(
            Findings::of(&text).verdict(false).is_ok(),
            "{}",
            path.display()
        );
        files += 1;
    }
    assert!(files >= 4);
}

/// The members that the parser knows of an object, by asking it about one that it does not.
fn known_to_the_parser(document: &str) -> BTreeSet<String> {
    let Err(Refused::Mistakes(mistakes)) = Config::read(document.as_bytes()) else {
        panic!("taken: {document}")
    };
    let list = mistakes
        .iter()
        .find_map(|mistake| mistake.problem.strip_prefix("is not known; known are "));
    list.unwrap().split(", ").map(str::to_owned).collect()
}

/// The members that the schema names at a place, through its references.
fn known_to_the_schema(schema: &Value, path: &[&str]) -> BTreeSet<String> {
    let resolve = |mut at: Value| {
        while let Some(reference) = at.get("$ref").and_then(Value::as_str) {
            at = schema.pointer(&reference[1..]).unwrap().clone();
        }
        at
    };
    let mut at = resolve(schema.clone());
    for name in path {
        at = match *name {
            "[]" => resolve(at["items"].clone()),
            name => resolve(at["properties"][name].clone()),
        };
    }
    assert_eq!(at["additionalProperties"], Value::Bool(false), "{path:?}");
    at["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

#[test]
fn the_schema_names_what_the_parser_knows_and_nothing_else() {
    let schema = schema();
    let policy = ["rules", "[]", "policy"];
    for (document, path) in [
        (r#"{"x": 1}"#, &[][..]),
        (r#"{"store": {"x": 1}}"#, &["store"]),
        (r#"{"limits": {"x": 1}}"#, &["limits"]),
        (r#"{"rules": [{"x": 1}]}"#, &["rules", "[]"]),
        (
            r#"{"rules": [{"match": {"x": 1}}]}"#,
            &["rules", "[]", "match"],
        ),
        (r#"{"rules": [{"policy": {"x": 1}}]}"#, &policy),
        (
            r#"{"rules": [{"policy": {"key": {"x": 1}}}]}"#,
            &["rules", "[]", "policy", "key"],
        ),
        (
            r#"{"rules": [{"policy": {"key": {"buckets": {"x": 1}}}}]}"#,
            &["rules", "[]", "policy", "key", "buckets"],
        ),
    ] {
        assert_eq!(
            known_to_the_schema(&schema, path),
            known_to_the_parser(document),
            "{path:?}"
        );
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for (document, is_good) in [
        (r#"{"rules": [{"policy": {"keep_s": 5}}]}"#, true),
        (r#"{"rules": [{"policy": {"keep_s": -1}}]}"#, false),
        (
            r#"{"rules": [{"policy": {"request_directives": ["no-cache"]}}]}"#,
            true,
        ),
        (
            r#"{"rules": [{"policy": {"request_directives": true}}]}"#,
            true,
        ),
        (
            r#"{"rules": [{"policy": {"request_directives": ["x"]}}]}"#,
            false,
        ),
        (
            r#"{"rules": [{"policy": {"unkeyed_fields": {"rsc": "strip"}}}]}"#,
            true,
        ),
        (
            r#"{"rules": [{"policy": {"unkeyed_fields": {"rsc": "drop"}}}]}"#,
            false,
        ),
        (
            r#"{"rules": [{"policy": {"error_statuses": [429, "52x"]}}]}"#,
            true,
        ),
        (
            r#"{"rules": [{"policy": {"error_statuses": [200]}}]}"#,
            false,
        ),
        (
            r#"{"rules": [{"policy": {"lifetime_jitter_percent": 51}}]}"#,
            false,
        ),
        (r#"{"rules": [{"policy": {"tell": "some"}}]}"#, false),
        (
            r#"{"rules": [{"match": {"query": {"a": false, "b": "x*"}}}]}"#,
            true,
        ),
        (r#"{"rules": [{"match": {"query": {"a": 1}}}]}"#, false),
        (r#"{"rules": [{"match": {"methods": []}}]}"#, false),
        (r#"{"limits": {"l1_bytes": 1073741824}}"#, false),
        (r#"{"store": {"token": "short"}}"#, false),
        (r#"{"rulez": []}"#, false),
        ("[]", false),
    ] {
        let value: Value = serde_json::from_str(document).unwrap();
        assert_eq!(validator.is_valid(&value), is_good, "schema: {document}");
        assert_eq!(
            Config::parse(document.as_bytes()).is_ok(),
            is_good,
            "parser: {document}"
        );
    }
}
