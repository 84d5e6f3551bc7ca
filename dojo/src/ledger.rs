//! What the ledger is about: accounts, and transactions whose lines are integer minor units. PURE.
//!
//! No category or budget yet, and one currency. SQL is in `store` and `verify`, and nowhere else.

pub mod store;
pub mod verify;

use serde::{Deserialize, Serialize};

/// Why a request is against the rules; the text is for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound(String),
    Conflict(String),
    Invalid(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Cash,
    Checking,
    Savings,
    Credit,
    Loan,
    Investment,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cash => "cash",
            Self::Checking => "checking",
            Self::Savings => "savings",
            Self::Credit => "credit",
            Self::Loan => "loan",
            Self::Investment => "investment",
        }
    }
}

/// Text that a person typed: trimmed, of 1 to 200 characters, without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Text(String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = text.trim();
        if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
            return Err("must be 1 to 200 characters on one line");
        }
        Ok(Self(text.to_owned()))
    }
}

/// A calendar day, written `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Day(jiff::civil::Date);

impl Day {
    pub fn iso(self) -> String {
        self.0.to_string()
    }
}

impl TryFrom<String> for Day {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // The engine has no year 0.
        let day = text.parse::<jiff::civil::Date>().ok();
        let day = day.filter(|day| day.year() >= 1 && text.len() == "YYYY-MM-DD".len());
        day.map(Self).ok_or("must be a day of the calendar, written YYYY-MM-DD")
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    pub name: Text,
    #[serde(default)]
    pub kind: Kind,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTransaction {
    pub day: Day,
    pub payee: Text,
    pub memo: Option<Text>,
    #[serde(deserialize_with = "lines")]
    pub lines: Vec<Line>,
}

/// An account's part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub account: i64,
    pub amount_minor: i64,
}

const MOST_LINES: usize = 100;

fn lines<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Line>, D::Error> {
    let lines = Vec::deserialize(deserializer)?;
    if lines.is_empty() || lines.len() > MOST_LINES {
        return Err(serde::de::Error::custom(format!("must be 1 to {MOST_LINES} lines")));
    }
    Ok(lines)
}

#[derive(Clone, Debug, Serialize)]
pub struct Account {
    pub id: i64,
    pub name: String,
    pub kind: String,
    pub balance_minor: i64,
}

/// A transaction as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct Transaction {
    pub id: i64,
    pub version: i32,
    /// The sequence number of this version.
    pub sequence: i64,
    pub voided: bool,
    pub day: String,
    pub payee: String,
    pub memo: Option<String>,
    pub lines: Vec<Line>,
    pub recorded_at: jiff::Timestamp,
}

/// The balance after these amounts, unless it would leave what 64 bits hold.
pub fn balance(before: i64, amounts: impl IntoIterator<Item = i128>) -> Option<i64> {
    // A sum of up to 100 amounts never leaves 128 bits, so the order of the lines does not matter.
    i64::try_from(i128::from(before) + amounts.into_iter().sum::<i128>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_one_of_the_calendar_from_year_1_on() {
        let day = |text: &str| Day::try_from(text.to_owned()).ok().map(Day::iso);
        assert_eq!(day("0001-01-01").as_deref(), Some("0001-01-01"));
        for text in ["0000-01-01", "2026-02-29", "20260101", "2026-1-1", ""] {
            assert_eq!(day(text), None, "{text}");
        }
    }

    #[test]
    fn a_balance_is_refused_only_when_its_end_does_not_fit() {
        assert_eq!(balance(i64::MAX, [1, -1]), Some(i64::MAX));
        assert_eq!(balance(i64::MAX, [1]), None);
        assert_eq!(balance(i64::MIN, [-1]), None);
    }

    #[test]
    fn a_transaction_is_read_strictly() {
        let good = r#"{"day":"2026-02-28","payee":" Grocer ","lines":[{"account":1,"amount_minor":-1250}]}"#;
        let read = serde_json::from_str::<NewTransaction>(good).unwrap();
        assert_eq!((read.payee.as_str(), read.day.iso().as_str()), ("Grocer", "2026-02-28"));
        for (from, to) in [
            ("2026-02-28", "2026-02-29"),
            ("2026-02-28", "2026-02-28T10:00"),
            ("2026-02-28", "28.2.2026"),
            (" Grocer ", " "),
            (" Grocer ", "two\\nlines"),
            ("-1250", "-12.5"),
            ("-1250", "9223372036854775808"),
            ("-1250", "\"-1250\""),
            ("\"account\":1", "\"account\":1,\"category\":2"),
            ("\"lines\":[{\"account\":1,\"amount_minor\":-1250}]", "\"lines\":[]"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert!(serde_json::from_str::<NewTransaction>(&bad).is_err(), "{bad}");
        }
    }
}
