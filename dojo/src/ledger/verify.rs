//! Whether a ledger's facts agree with each other: what a damaged or cut file would break.
//!
//! A tail that is missing altogether is not seen here; it shows to whoever knows a later sequence number.

use anyhow::Context as _;
use duckdb::Connection;

use super::store;
use crate::fault::Fault;

/// What must not be found, and how many there are.
const RULES: &[(&str, &str)] = &[
    ("the ledger does not have exactly one id", "SELECT count(*) <> 1 FROM ledger"),
    (
        "the sequence does not run from 1 to its end without a gap",
        "SELECT count(*) <> coalesce(max(seq), 0) OR count(DISTINCT seq) <> count(*) OR coalesce(min(seq), 1) <> 1
         FROM (SELECT seq FROM account UNION ALL SELECT seq FROM txn_version)",
    ),
    (
        "a transaction's versions do not run from 1 to its newest",
        "SELECT count(*) FROM (
            SELECT txn_id FROM txn_version GROUP BY txn_id
            HAVING count(*) <> max(version) OR count(DISTINCT version) <> count(*) OR min(version) <> 1
                OR arg_max(seq, version) <> max(seq))",
    ),
    ("a version is neither put nor void", "SELECT count(*) FROM txn_version WHERE action NOT IN ('put', 'void')"),
    (
        "a transaction that is put has no lines",
        "SELECT count(*) FROM txn_version WHERE action = 'put' AND seq NOT IN (SELECT seq FROM line)",
    ),
    (
        "a line belongs to no transaction that is put",
        "SELECT count(*) FROM line WHERE seq NOT IN (SELECT seq FROM txn_version WHERE action = 'put')",
    ),
    (
        "a line names an account that is not there",
        "SELECT count(*) FROM line WHERE account_id NOT IN (SELECT account_id FROM account)",
    ),
    (
        "an account is there twice",
        "SELECT count(*) FROM (SELECT account_id FROM account GROUP BY account_id HAVING count(*) > 1)",
    ),
];

/// How much was found to be sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub accounts: i64,
    pub transactions: i64,
}

/// Refuses a ledger that breaks a rule, naming every rule that is broken.
pub fn ledger(conn: &Connection) -> anyhow::Result<Counts> {
    let count = |sql: &str| {
        let sql = format!("SELECT ({sql})::BIGINT");
        conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).with_context(|| sql.clone())
    };
    let mut broken = Vec::new();
    for (rule, sql) in RULES {
        let found = count(sql)?;
        if found > 0 {
            broken.push(format!("{rule} ({found})"));
        }
    }
    if let Err(error) = store::accounts(conn) {
        broken.push(format!("balances cannot be computed: {error:?}"));
    }
    if broken.is_empty() {
        let transactions = count("SELECT count(DISTINCT txn_id) FROM txn_version")?;
        return Ok(Counts { accounts: count("SELECT count(*) FROM account")?, transactions });
    }
    Err(Fault::refused(format!("the ledger is damaged: {}", broken.join("; ")))
        .help("keep the file as it is, and restore the newest backup that `dojo check` finds sound")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::migrate::{Migrations, apply};

    const SOUND: &str = "
        INSERT INTO account BY NAME
            SELECT 1 AS seq, 1 AS account_id, 'Cash' AS name, 'cash' AS kind, 't' AS actor, epoch AS recorded_at
            FROM (SELECT make_timestamp(0) AS epoch);
        INSERT INTO txn_version BY NAME
            SELECT *, DATE '2026-01-01' AS day, 'A' AS payee, 't' AS actor, make_timestamp(0) AS recorded_at
            FROM (VALUES (2, 2, 1, 'put'), (3, 3, 1, 'put'), (4, 2, 2, 'void')) AS v (seq, txn_id, version, action);
        INSERT INTO line BY NAME
            SELECT *, -5 AS amount_minor FROM (VALUES (2, 1, 1), (3, 1, 1)) AS l (seq, line_no, account_id);";

    #[test]
    fn each_kind_of_damage_is_named() {
        for (damage, named) in [
            ("DELETE FROM ledger", "exactly one id"),
            ("DELETE FROM txn_version WHERE seq = 3; DELETE FROM line WHERE seq = 3", "without a gap"),
            ("UPDATE txn_version SET version = 3 WHERE seq = 4", "versions do not run"),
            ("UPDATE txn_version SET action = 'edit' WHERE seq = 4", "neither put nor void"),
            ("DELETE FROM line WHERE seq = 3", "has no lines"),
            (
                "INSERT INTO line (seq, line_no, account_id, amount_minor) VALUES (4, 1, 1, -5)",
                "belongs to no transaction",
            ),
            ("UPDATE line SET account_id = 9", "an account that is not there"),
            ("INSERT INTO account SELECT * REPLACE (5 AS seq) FROM account", "is there twice"),
            (
                "INSERT INTO line SELECT line.* REPLACE (9223372036854775807 AS amount_minor) FROM line, range(2) WHERE seq = 3",
                "balances cannot be computed",
            ),
        ] {
            let conn = Connection::open_in_memory().unwrap();
            let known = Migrations::embedded().unwrap();
            apply(&conn, known.pending(&[]).unwrap(), &crate::stop::Stop::default()).unwrap();
            conn.execute_batch(SOUND).unwrap();
            assert_eq!(ledger(&conn).unwrap(), Counts { accounts: 1, transactions: 2 });
            conn.execute_batch(damage).unwrap();
            let error = ledger(&conn).unwrap_err().to_string();
            assert!(error.contains(named), "{damage}: {error}");
        }
    }
}
