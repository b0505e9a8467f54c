//! Patterns with `*`.

/// A text in which each `*` stands for any run of characters, the empty one too. Nothing else is
/// special, and upper and lower case differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Glob {
    /// `*`
    Any,
    /// Without `*`.
    Exact(Box<str>),
    /// What lies before the first, between and after the last `*`.
    Pieces { first: Box<str>, between: Box<[Box<str>]>, last: Box<str> },
}

impl Glob {
    /// Reads a pattern; the reason if it is none.
    pub(super) fn read(pattern: &str) -> Result<Self, &'static str> {
        if pattern.is_empty() {
            return Err("it is empty; `*` stands for all");
        }
        if pattern.contains("**") {
            return Err("it has `**`; one `*` stands for everything already");
        }
        if pattern == "*" {
            return Ok(Self::Any);
        }
        let Some((first, rest)) = pattern.split_once('*') else {
            return Ok(Self::Exact(pattern.into()));
        };
        let mut between: Vec<Box<str>> = rest.split('*').map(Box::from).collect();
        let last = between.pop().unwrap_or_default();
        Ok(Self::Pieces { first: first.into(), between: between.into(), last })
    }

    /// Whether the pattern stands for this. Takes time in proportion to the text.
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *text,
            Self::Pieces { first, between, last } => {
                let inner = text.strip_prefix(&**first).and_then(|it| it.strip_suffix(&**last));
                let Some(mut rest) = inner else { return false };
                // The leftmost place of each piece leaves the most for those that follow.
                for piece in between {
                    match rest.split_once(&**piece) {
                        Some((_, after)) => rest = after,
                        None => return false,
                    }
                }
                true
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The definition itself: slow, and easy to see through.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((b'*', rest)), None) => by_definition(rest, text),
            (Some((b'*', rest)), Some((_, later))) => {
                by_definition(rest, text) || by_definition(pattern, later)
            }
            (Some((byte, rest)), Some((first, later))) => {
                byte == first && by_definition(rest, later)
            }
            (Some(_), None) => false,
        }
    }

    /// All words of these letters, up to that length.
    fn words(letters: &str, longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..longest {
            let until = all.len();
            for at in from..until {
                for letter in letters.chars() {
                    all.push(format!("{}{letter}", all[at]));
                }
            }
            from = until;
        }
        all
    }

    #[test]
    fn patterns_match_as_they_are_defined() {
        let texts = words("ab", 6);
        let mut matched = 0;
        for pattern in words("ab*", 5) {
            let Ok(glob) = Glob::read(&pattern) else {
                assert!(pattern.is_empty() || pattern.contains("**"));
                continue;
            };
            for text in &texts {
                let wanted = by_definition(pattern.as_bytes(), text.as_bytes());
                assert_eq!(glob.matches(text), wanted, "{pattern} {text}");
                matched += usize::from(wanted);
            }
        }
        assert!(matched > 1000, "{matched}");
    }

    #[test]
    fn characters_stay_whole_and_nothing_but_the_star_is_special() {
        let is = |pattern: &str, text: &str| Glob::read(pattern).unwrap().matches(text);
        assert!(is("gr*ße", "größe") && is("*ö*", "größe") && !is("*ü*", "größe"));
        assert!(is("a.?[b]", "a.?[b]") && !is("a.?[b]", "axyb") && !is("A*", "abc"));
    }

    #[test]
    fn a_hard_pattern_is_over_soon() {
        let glob = Glob::read(&"*a".repeat(127)).unwrap();
        assert!(!glob.matches(&format!("{}b", "a".repeat(100_000))));
        assert!(glob.matches(&"a".repeat(100_000)));
    }
}
