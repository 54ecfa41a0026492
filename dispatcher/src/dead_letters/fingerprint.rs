//! Groups like reasons: ids, numbers, quoted names and paths are removed, what is left is the kind of failure. Pure.

/// The reason with everything that varies from letter to letter replaced by a mark, at most 200 characters.
pub fn fingerprint(reason: &str) -> String {
    let first_line = reason.lines().next().unwrap_or_default();
    let words: Vec<String> = unquoted(first_line).split_whitespace().map(normal).collect();
    words.join(" ").chars().take(200).collect()
}

/// Replaces `"…"` by `_`; what stands between quotes is always somebody's name for something, escaped as Rust does.
fn unquoted(text: &str) -> String {
    let (mut out, mut is_quoted, mut characters) = (String::new(), false, text.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted => is_quoted = false,
            '"' => {
                is_quoted = true;
                out.push('_');
            }
            '\\' if is_quoted => {
                characters.next();
            }
            _ if is_quoted => {}
            other => out.push(other),
        }
    }
    out
}

fn normal(word: &str) -> String {
    let is_mark = |c: char| !c.is_ascii_alphanumeric();
    let bare = word.trim_matches(is_mark);
    // A path begins and ends as it likes; of an id what stands around it is no part.
    let (before, after) = word.split_once(bare).filter(|_| !bare.is_empty()).unwrap_or_default();
    if bare.is_empty() || word.contains('/') { kind(word) } else { format!("{before}{}{after}", kind(bare)) }
}

fn kind(word: &str) -> String {
    let is_path = word.contains("://") || word.contains('/');
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let is_hash =
        word.len() >= 16 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') && digits > 3;
    match (is_path, is_hash, digits) {
        (true, _, _) => "<path>".to_owned(),
        (_, true, _) => "<id>".to_owned(),
        (_, _, 0) => word.to_owned(),
        _ => collapse_digits(word),
    }
}

fn collapse_digits(word: &str) -> String {
    let mut out = String::new();
    for character in word.chars() {
        match character {
            c if c.is_ascii_digit() => {
                if !out.ends_with('#') {
                    out.push('#');
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn letters_that_differ_only_in_names_and_numbers_group() {
        let a = fingerprint("read gs://acme-uploads/q3/a.csv: 17 rows of \"pos.csv\" are broken");
        let b = fingerprint("read gs://bolt-uploads/x.csv: 4 rows of \"other file.csv\" are broken");
        assert_eq!(a, b);
        assert_ne!(a, fingerprint("every file was refused"));
        for (one, other) in [
            (
                "outcome of review rv_fe12dcba98765432fe12dcba98765432: no JSON",
                "outcome of review rv_0123456789abcdef0123456789abcdef: no JSON",
            ),
            ("(ev_0123456789abcdef) after 3 s, in vain", "(ev_abcdef0123456789) after 17 s, in vain"),
        ] {
            assert_eq!(fingerprint(one), fingerprint(other));
        }
        let named =
            |name: &str| fingerprint(&format!("pack {name:?} holds no file; upload it, or \"_COMPLETE\" again"));
        for name in ["5\" shelf", "\"", "back\\", "\\\""] {
            assert_eq!(named(name), named("q3"), "{name}");
        }
        assert_eq!(fingerprint("review rv_fe12dcba98765432: gone"), "review <id>: gone");
    }
}
