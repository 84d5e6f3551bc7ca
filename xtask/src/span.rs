//! Durations, for a person.

use jiff::{SignedDuration, Timestamp};

/// `1d 2h`, `12m 30s`: two units are enough for a person.
pub fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let units =
        [(seconds / 86400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown =
        units.iter().skip(first).take(2).filter(|(count, unit)| *count > 0 || (seconds == 0 && *unit == "s"));
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

/// For how long something has been so; of what lies ahead, by another machine's clock, nothing.
pub fn since(then: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(then).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_shown_and_no_zeros() {
        let told = |seconds| span(SignedDuration::from_secs(seconds));
        assert_eq!(
            [0, 59, 60, 192, 3600, 86_400, 90_061].map(told),
            ["0s", "59s", "1m", "3m 12s", "1h", "1d", "1d 1h"]
        );
    }
}
