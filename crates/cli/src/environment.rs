//! The environment, read in one place.

/// The value of a variable; `None` when it is absent, empty or not UTF-8.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
