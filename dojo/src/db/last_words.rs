//! What a failed `migrate` or `serve` says last of the data file, for whoever has only the pod's status to read: what the
//! file is at now, since earlier migrations of a chain may be committed, and the backups that there are.

use std::path::Path;

use super::lock::Lock;
use super::{backup, open, restore};

/// Lines for a program to read, each only if it can be told: nothing that goes wrong here is worth a word, and nothing
/// is written.
pub fn of(db: &Path) -> Vec<String> {
    [data(db), backups(db)].into_iter().flatten().collect()
}

fn data(db: &Path) -> Option<String> {
    if restore::is_begun(db) || !db.is_file() {
        return None;
    }
    // Whoever has the lock knows better; even a reader could be in the way of its start.
    let _lock = Lock::take_if_present(db).ok()?;
    let (identity, _) = open::inspect(db).ok()?;
    let open::Identity { id, schema, oldest_binary, sequence } = identity;
    Some(format!("data: schema {schema}, oldest binary {oldest_binary}, ledger {id}, sequence {sequence}"))
}

/// The newest three.
fn backups(db: &Path) -> Option<String> {
    let ids = backup::list(db).ok()?.into_iter().map(|backup| backup.id);
    let plain = |id: &String| !id.contains(|c: char| c == ',' || c.is_control());
    let ids: Vec<_> = ids.filter(plain).take(3).collect();
    (!ids.is_empty()).then(|| format!("backups: {}", ids.join(", ")))
}
