//! The ledger's SQL: appended facts in, what they add up to out. Every column is named, since a newer schema that
//! admits this binary may have more of them.

use duckdb::{Connection, OptionalExt as _, Row, params};
use jiff::Timestamp;

use super::{Account, Line, NewAccount, NewTransaction, Refusal, Transaction, balance};
use crate::db::{Draft, Error};

/// The newest version of each transaction; versions only grow with the sequence.
const CURRENT: &str = "seq IN (SELECT max(seq) FROM txn_version GROUP BY txn_id)";

const ACCOUNTS: &str = "
    SELECT account_id, name, kind, coalesce(total, 0)::BIGINT
    FROM account LEFT JOIN (
        SELECT account_id, sum(amount_minor) AS total FROM line
        WHERE seq IN (SELECT max(seq) FROM txn_version GROUP BY txn_id) GROUP BY account_id
    ) USING (account_id)";

/// A new account together with the sequence number of the write.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Added {
    #[serde(flatten)]
    pub account: Account,
    pub sequence: i64,
}

/// The last sequence number in the file; 0 in a new one.
pub fn sequence(conn: &Connection) -> duckdb::Result<i64> {
    let sql =
        "SELECT coalesce(max(seq), 0) FROM (SELECT seq FROM account UNION ALL SELECT seq FROM txn_version)";
    conn.query_row(sql, [], |row| row.get(0))
}

pub fn add_account(draft: &mut Draft<'_>, new: &NewAccount, actor: &str) -> Result<Added, Error> {
    let taken = "SELECT count(*) FROM account WHERE lower(name) = lower(?)";
    let name = new.name.as_str();
    if draft.conn.query_row(taken, [name], |row| row.get::<_, i64>(0))? > 0 {
        return Err(Refusal::Conflict(format!("there is an account named {name:?} already")).into());
    }
    // An account is named after the write that made it, so no number is ever given twice.
    let sequence = draft.sequence();
    draft.conn.execute(
        "INSERT INTO account (seq, account_id, name, kind, actor, recorded_at)
         VALUES (?, ?, ?, ?, ?, make_timestamp(?))",
        params![sequence, sequence, name, new.kind.as_str(), actor, draft.now.as_microsecond()],
    )?;
    let kind = new.kind.as_str().to_owned();
    Ok(Added { account: Account { id: sequence, name: name.to_owned(), kind, balance_minor: 0 }, sequence })
}

pub fn accounts(conn: &Connection) -> Result<Vec<Account>, Error> {
    let mut statement = conn.prepare(&format!("{ACCOUNTS} ORDER BY account_id"))?;
    Ok(statement.query_map([], account)?.collect::<duckdb::Result<_>>()?)
}

pub fn add_transaction(
    draft: &mut Draft<'_>,
    new: &NewTransaction,
    actor: &str,
) -> Result<Transaction, Error> {
    balances_fit(draft.conn, &new.lines, 1)?;
    let sequence = draft.sequence();
    let transaction = Transaction {
        id: sequence,
        version: 1,
        sequence,
        voided: false,
        day: new.day.iso(),
        payee: new.payee.as_str().to_owned(),
        memo: new.memo.as_ref().map(|memo| memo.as_str().to_owned()),
        lines: new.lines.clone(),
        recorded_at: draft.now,
    };
    insert(draft, &transaction, actor)?;
    Ok(transaction)
}

/// Voids as a new version; a void of what is void is the same void.
pub fn void_transaction(draft: &mut Draft<'_>, id: i64, actor: &str) -> Result<Transaction, Error> {
    let current = transaction(draft.conn, id)?;
    if current.voided {
        return Ok(current);
    }
    balances_fit(draft.conn, &current.lines, -1)?;
    let sequence = draft.sequence();
    let voided = Transaction {
        version: current.version + 1,
        sequence,
        voided: true,
        lines: Vec::new(),
        recorded_at: draft.now,
        ..current
    };
    insert(draft, &voided, actor)?;
    Ok(voided)
}

pub fn transaction(conn: &Connection, id: i64) -> Result<Transaction, Error> {
    let found = select(conn, "txn_id = ?", &[&id], 1)?.pop();
    Ok(found.ok_or_else(|| Refusal::NotFound(format!("there is no transaction {id}")))?)
}

/// Newest first, those before `before` only, without the void ones.
pub fn transactions(conn: &Connection, before: Option<i64>, limit: usize) -> Result<Vec<Transaction>, Error> {
    let before = before.unwrap_or(i64::MAX);
    Ok(select(conn, "action = 'put' AND seq < ?", &[&before], limit)?)
}

/// Whether every account is there, and its balance still fits when these lines are added or (-1) taken away.
fn balances_fit(conn: &Connection, lines: &[Line], sign: i128) -> Result<(), Error> {
    let mut statement = conn.prepare(&format!("{ACCOUNTS} WHERE account_id = ?"))?;
    for Line { account: id, .. } in lines {
        let found = statement.query_row([id], account).optional()?;
        let found = found.ok_or_else(|| Refusal::Invalid(format!("there is no account {id}")))?;
        let own = lines.iter().filter(|line| line.account == *id);
        if balance(found.balance_minor, own.map(|line| sign * i128::from(line.amount_minor))).is_none() {
            return Err(Refusal::Invalid(format!("the balance of account {id} would leave 64 bits")).into());
        }
    }
    Ok(())
}

fn insert(draft: &Draft<'_>, new: &Transaction, actor: &str) -> duckdb::Result<()> {
    draft.conn.execute(
        "INSERT INTO txn_version (seq, txn_id, version, action, day, payee, memo, actor, recorded_at)
         VALUES (?, ?, ?, ?, ?::DATE, ?, ?, ?, make_timestamp(?))",
        params![
            new.sequence,
            new.id,
            new.version,
            if new.voided { "void" } else { "put" },
            new.day,
            new.payee,
            new.memo,
            actor,
            new.recorded_at.as_microsecond()
        ],
    )?;
    let sql = "INSERT INTO line (seq, line_no, account_id, amount_minor) VALUES (?, ?, ?, ?)";
    let mut statement = draft.conn.prepare(sql)?;
    for (number, line) in (1_i32..).zip(&new.lines) {
        statement.execute(params![new.sequence, number, line.account, line.amount_minor])?;
    }
    Ok(())
}

fn select(
    conn: &Connection,
    condition: &str,
    values: &[&dyn duckdb::ToSql],
    limit: usize,
) -> duckdb::Result<Vec<Transaction>> {
    let mut statement = conn.prepare(&format!(
        "SELECT txn_id, version, seq, action, day::VARCHAR, payee, memo, epoch_us(recorded_at)
         FROM txn_version WHERE {CURRENT} AND {condition} ORDER BY seq DESC LIMIT {limit}"
    ))?;
    let mut found =
        statement.query_map(values, transaction_row)?.collect::<duckdb::Result<Vec<Transaction>>>()?;
    let (Some(newest), Some(oldest)) = (found.first(), found.last()) else { return Ok(found) };
    let sql =
        "SELECT seq, account_id, amount_minor FROM line WHERE seq BETWEEN ? AND ? ORDER BY seq, line_no";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([oldest.sequence, newest.sequence], |row| {
        Ok((row.get::<_, i64>(0)?, Line { account: row.get(1)?, amount_minor: row.get(2)? }))
    })?;
    for row in rows {
        let (sequence, line) = row?;
        // A superseded version's lines lie between, and belong to nobody here.
        if let Ok(index) = found.binary_search_by(|probe| sequence.cmp(&probe.sequence)) {
            found[index].lines.push(line);
        }
    }
    Ok(found)
}

fn account(row: &Row<'_>) -> duckdb::Result<Account> {
    Ok(Account { id: row.get(0)?, name: row.get(1)?, kind: row.get(2)?, balance_minor: row.get(3)? })
}

fn transaction_row(row: &Row<'_>) -> duckdb::Result<Transaction> {
    Ok(Transaction {
        id: row.get(0)?,
        version: row.get(1)?,
        sequence: row.get(2)?,
        voided: row.get::<_, String>(3)? == "void",
        day: row.get(4)?,
        payee: row.get(5)?,
        memo: row.get(6)?,
        lines: Vec::new(),
        recorded_at: Timestamp::from_microsecond(row.get(7)?).unwrap_or_default(),
    })
}
