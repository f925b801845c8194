//! The resources that are written and read: how each is called, and what the origin says of it.

/// How many there are.
pub(crate) const COUNT: usize = 32;
/// How many tags there are.
pub(crate) const TAGS: usize = 4;
/// The path prefixes; each has half of the keys.
pub(crate) const PREFIXES: [&str; 2] = ["/a/", "/b/"];
/// The host that all clients name.
pub(crate) const HOST: &str = "shop.example";

/// The path of a key.
pub(crate) fn path(key: usize) -> String {
    format!("{}k{key}", PREFIXES[prefix(key)])
}

/// The key of a path.
pub(crate) fn of_path(path: &str) -> Option<usize> {
    let key: usize = path.rsplit_once("/k")?.1.parse().ok()?;
    (key < COUNT && self::path(key) == path).then_some(key)
}

/// Which prefix the path has.
pub(crate) fn prefix(key: usize) -> usize {
    key * PREFIXES.len() / COUNT
}

/// Which tag it has, if any.
pub(crate) fn tag(key: usize) -> Option<usize> {
    (!key.is_multiple_of(4)).then_some(key / 4 % TAGS)
}

/// What the origin says of its lifetime: long, or short with a window in which it may be stale.
pub(crate) fn cache_control(key: usize) -> &'static str {
    match key % 4 {
        0 | 1 => "max-age=600",
        2 => "max-age=2, stale-while-revalidate=600",
        _ => "max-age=3, stale-if-error=600",
    }
}

/// The content of a version: what it is, and as many bytes as it says.
pub(crate) fn content(key: usize, version: u64) -> String {
    let length = if key % 8 == 5 { 40_000 } else { 100 + key * 61 };
    let filler = char::from(b'a' + u8::try_from(version % 26).unwrap_or(0));
    format!(
        "key={key} version={version} length={length}\n{}",
        String::from(filler).repeat(length)
    )
}

/// The version in some content, if it is this key's and whole. The error says what it is instead.
pub(crate) fn version_in(body: &str, key: usize) -> Result<u64, String> {
    let line = body.lines().next().unwrap_or_default();
    let version = line
        .split(' ')
        .find_map(|word| word.strip_prefix("version=")?.parse().ok());
    let version = version.ok_or_else(|| format!("content that nobody wrote: {:?}", cut(body)))?;
    if body == content(key, version) {
        Ok(version)
    } else {
        Err(format!("other content than {key}'s: {:?}", cut(body)))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_back_to_its_key() {
        for key in 0..COUNT {
            assert_eq!(of_path(&path(key)), Some(key));
        }
        assert_eq!(of_path("/a/k31"), None, "it is under /b/");
        assert_eq!(of_path("/"), None);
    }

    #[test]
    fn only_the_whole_content_of_the_key_itself_has_a_version() {
        let body = content(3, 17);
        assert_eq!(version_in(&body, 3), Ok(17));
        assert!(version_in(&body, 4).is_err());
        assert!(version_in(&body[..body.len() - 1], 3).is_err());
        assert!(
            version_in(&body.replacen("version=17", "version=16", 1), 3).is_err(),
            "a mixture"
        );
        assert!(version_in("upstream connect error", 3).is_err());
    }
}
