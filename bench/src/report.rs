//! The document of measurements: each run replaces its own sections and leaves the others.

use std::path::Path;

use crate::machine;

/// A table in Markdown.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.to_vec());
    text.push_str(&line(vec!["---"; head.len()]));
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Date, machine, and Larder's version.
pub(crate) fn when_and_where() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(0);
    let date = larder_contract::http_time::Timestamp::from_millis(millis).to_http_date();
    let date = date.get(..16).unwrap_or(&date);
    format!(
        "{date}; {}; Larder {}.",
        machine::hardware(),
        env!("CARGO_PKG_VERSION")
    )
}

/// Puts `text` between the markers of `section`, at the end where there are none.
pub(crate) fn put(document: &Path, section: &str, text: &str) -> std::io::Result<()> {
    let (open, close) = (
        format!("<!-- {section} -->"),
        format!("<!-- /{section} -->"),
    );
    let mut all = std::fs::read_to_string(document).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
    let block = format!("{open}\n{}\n{close}", text.trim_end());
    match (all.find(&open), all.find(&close)) {
        (Some(start), Some(end)) if start < end => {
            all.replace_range(start..end + close.len(), &block)
        }
        _ => all = format!("{}\n\n{block}\n", all.trim_end()),
    }
    std::fs::write(document, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("b.md");
        put(&document, "one", "1").unwrap();
        put(&document, "two", "2").unwrap();
        put(&document, "one", "3").unwrap();
        let text = std::fs::read_to_string(&document).unwrap();
        assert_eq!(
            text,
            "# Benchmarks\n\n<!-- one -->\n3\n<!-- /one -->\n\n<!-- two -->\n2\n<!-- /two -->\n"
        );
    }

    #[test]
    fn a_table_has_a_head_and_its_rows() {
        assert_eq!(
            table(&["a", "b"], &[vec!["1".into(), "2".into()]]),
            "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
        );
    }
}
