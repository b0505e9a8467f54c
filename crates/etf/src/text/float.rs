//! Floats as Erlang writes them: the fewest digits that read back as the same float.

/// The text of a finite float, as `float_to_list(F, [short])`.
pub(super) fn short(value: f64) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let text = shortest(value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let exponent: i32 = exponent.parse().unwrap_or_default();
    format!("{sign}{}", place(&digits, exponent.saturating_add(1), value.abs()))
}

/// The fewest digits; where two strings of digits are equally near, the one that ends even. Rust
/// takes the greater one.
fn shortest(value: f64) -> String {
    let text = format!("{value:e}");
    let digits = text.bytes().take_while(|&byte| byte != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    if even.parse() == Ok(value) { even } else { text }
}

/// Puts the point after `place` digits, or writes an exponent where that is shorter. What is above
/// 2⁵³ has an exponent always, so that no digit is shown that is not known.
fn place(digits: &str, place: i32, value: f64) -> String {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let exponent = place.saturating_sub(1).to_string();
    let with_exponent = || {
        let (first, rest) = digits.split_at_checked(1).unwrap_or((digits, ""));
        format!("{first}.{}e{exponent}", if rest.is_empty() { "0" } else { rest })
    };
    if value == 0.0 {
        return "0.0".to_owned();
    }
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let extra = if count == 1 { 3 } else { 2 };
    let cost = i32::try_from(exponent.len()).unwrap_or(i32::MAX).saturating_add(extra);
    if place <= 0 {
        let leading = place.saturating_neg();
        if place == 0 || leading.saturating_add(2) <= cost {
            format!("0.{}{digits}", zeros(leading))
        } else {
            with_exponent()
        }
    } else if place >= count {
        let trailing = place.saturating_sub(count);
        if trailing.saturating_add(2) <= cost && value < EXACT {
            format!("{digits}{}.0", zeros(trailing))
        } else {
            with_exponent()
        }
    } else {
        let (whole, part) = usize::try_from(place)
            .ok()
            .and_then(|place| digits.split_at_checked(place))
            .unwrap_or((digits, "0"));
        format!("{whole}.{part}")
    }
}
