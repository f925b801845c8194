use super::*;
use proptest::prelude::*;

fn members(value: &str) -> Vec<&str> {
    list_members(value.as_bytes())
        .map(|member| std::str::from_utf8(member).unwrap())
        .collect()
}

#[test]
fn the_same_lines_are_told_whatever_the_order_of_names() {
    let fields = |pairs: &[(&str, &str)]| Fields::from_pairs(pairs.iter().copied());
    let one = fields(&[("a", "1"), ("b", "2"), ("a", "3"), ("date", "x")]);
    assert!(one.same_but_for(
        "date",
        &fields(&[
            ("b", "2"),
            ("date", "y"),
            ("date", "z"),
            ("a", "1"),
            ("a", "3")
        ])
    ));
    assert!(
        !one.same_but_for("date", &fields(&[("b", "2"), ("a", "3"), ("a", "1")])),
        "an order within a name"
    );
    assert!(!one.same_but_for(
        "date",
        &fields(&[("a", "1"), ("a", "3"), ("b", "2"), ("c", "4")])
    ));
    assert!(!one.same_but_for("date", &fields(&[("a", "1"), ("a", "3"), ("c", "2")])));
}

#[test]
fn a_list_is_split_at_commas_outside_quoted_strings() {
    for (value, expected) in [
        ("a, b ,c", vec!["a", "b", "c"]),
        (", ,a,,", vec!["a"]),
        (
            r#"ext="x, no-store, y", max-age=60"#,
            vec![r#"ext="x, no-store, y""#, "max-age=60"],
        ),
        (r#"a="\",b", c"#, vec![r#"a="\",b""#, "c"]),
        (r#"a="unclosed, b"#, vec![r#"a="unclosed, b"#]),
        ("", vec![]),
    ] {
        assert_eq!(members(value), expected, "{value}");
    }
}

#[test]
fn joined_lines_get_their_space_back() {
    assert_eq!(
        respaced(b"max-age=1,s-maxage=2, x").unwrap(),
        b"max-age=1, s-maxage=2, x"
    );
    for fine in ["", "max-age=1", "a, b", "a,\tb", "private=\"a,b\""] {
        assert_eq!(respaced(fine.as_bytes()), None, "{fine}");
    }
}

#[test]
fn names_lose_their_case_and_lines_keep_their_order_and_repeats() {
    let fields = Fields::from_pairs([("Link", "a"), ("ETag", "\"x\""), ("link", "b")]);
    assert_eq!(fields.all("link").collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(fields.combined("link").unwrap(), b"a, b");
    assert_eq!(fields.get("etag"), Some(&b"\"x\""[..]));
}

#[test]
fn setting_a_field_replaces_all_its_lines() {
    let mut fields = Fields::from_pairs([("a", "1"), ("b", "2"), ("a", "3")]);
    fields.set(b"A", b"4");
    assert_eq!(fields, Fields::from_pairs([("b", "2"), ("a", "4")]));
}

#[test]
fn a_line_break_or_a_nul_in_a_value_is_not_safe_to_emit() {
    for bad in ["a\r\nset-cookie: x", "a\nb", "a\rb", "a\0b"] {
        assert!(
            !are_safe_to_emit(&Fields::from_pairs([("x", bad)])),
            "{bad:?}"
        );
    }
    for bad in ["", "a b", "a:b", ":status", "a\r"] {
        assert!(
            !are_safe_to_emit(&Fields::from_pairs([(bad, "v")])),
            "{bad:?}"
        );
    }
    assert!(are_safe_to_emit(&Fields::from_pairs([(
        "x",
        &b"caf\xe9 \t"[..]
    )])));
}

proptest! {
    #[test]
    fn splitting_loses_no_byte(value in proptest::collection::vec(any::<u8>(), 0..64)) {
        let parts: Vec<&[u8]> = split_unquoted(&value, b',').collect();
        prop_assert_eq!(parts.join(&b','), value);
    }

    #[test]
    fn what_is_appended_is_read_back(pairs in proptest::collection::vec(("[a-z]{1,8}", ".*"), 0..8)) {
        let fields = Fields::from_pairs(pairs.clone());
        let read: Vec<_> = fields.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        let given: Vec<_> = pairs.into_iter().map(|(n, v)| (n.into_bytes(), v.into_bytes())).collect();
        prop_assert_eq!(read, given);
    }

    #[test]
    fn text_and_lengths_are_taken_over_as_they_were_given(
        pairs in proptest::collection::vec(("[a-z:-]{0,8}", ".*"), 0..8), junk in 0usize..9, cut in 1usize..20,
    ) {
        let fields = Fields::from_pairs(pairs);
        let mut buffer = vec![b'?'; junk];
        buffer.extend_from_slice(fields.text());
        let lengths: Vec<_> = fields.lengths().collect();
        let length = |_: &[u8], line: usize| lengths.get(line).copied();
        let taken = Fields::from_text(buffer.clone(), junk, lengths.len(), length).unwrap();
        prop_assert_eq!(&taken, &fields);
        prop_assert_eq!(taken.text(), fields.text());
        if !fields.is_empty() {
            buffer.truncate(buffer.len().saturating_sub(cut));
            prop_assert!(Fields::from_text(buffer, junk, lengths.len(), length).is_none());
        }
    }

    #[test]
    fn a_name_is_found_exactly_where_it_is(
        pairs in proptest::collection::vec(("[a-c]{1,3}", "[a-z]?"), 0..8), name in "[a-c]{1,3}",
    ) {
        let mut fields = Fields::from_pairs(pairs.clone());
        let held = pairs.iter().filter(|(held, _)| *held == name).count();
        prop_assert_eq!(fields.all(&name).count(), held);
        prop_assert_eq!(fields.remove(name.as_bytes()), held > 0);
        prop_assert_eq!(fields.len(), pairs.len() - held);
        prop_assert!(!fields.contains(&name));
    }
}

#[test]
fn of_each_name_the_first_line_is_told_and_whether_more_follow() {
    let fields = Fields::from_pairs([("b", "1"), ("a", ""), ("b", "2"), ("A", ""), ("c", "")]);
    let firsts: Vec<_> = fields
        .firsts()
        .map(|(name, value, more)| (name.to_vec(), value.to_vec(), more))
        .collect();
    let line = |name: &[u8], value: &[u8], more| (name.to_vec(), value.to_vec(), more);
    assert_eq!(
        firsts,
        [
            line(b"b", b"1", true),
            line(b"a", b"", true),
            line(b"c", b"", false)
        ]
    );
}
