//! What benchmarks' tables have in common, for people and as JSON.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// What was wanted of this tool, and what was measured.
pub struct Verdict {
    pub what: String,
    /// At most this, in words.
    pub target: String,
    pub value: f64,
    pub met: bool,
}

/// The verdicts' table.
pub fn wanted(verdicts: Vec<Verdict>) -> Table {
    let mut wanted = table(&["wanted of xtask", "at most", "measured", "met"]);
    for verdict in verdicts {
        let met = if verdict.met { "yes" } else { "NO" };
        wanted.add_row([verdict.what, verdict.target, format!("{:.3}", verdict.value), met.to_owned()]);
    }
    wanted
}

pub fn json(verdicts: &[Verdict]) -> Value {
    let row = |v: &Verdict| json!({ "what": v.what, "at_most": v.target, "measured": v.value, "met": v.met });
    verdicts.iter().map(row).collect()
}

/// Which build was measured: the benchmark and the tool are of one profile.
pub fn profile() -> &'static str {
    if cfg!(debug_assertions) {
        "xtask: dev build, as `cargo xtask` runs it"
    } else {
        "xtask: RELEASE build, which nobody runs: use just"
    }
}

/// Figures stand to the right, names of cases and tools to the left.
pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.to_vec());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 && heads[index] != "tool" {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
