//! The figures for people, and as JSON.

use serde_json::{Value, json};

use crate::case::{Figures, Measured, Target};
use crate::tables::{self, Verdict, profile, table};

/// No push of this tool may take more memory, in bytes.
const PEAK: u64 = 100_000_000;
/// What the heads of a push's requests and its manifest take at most, in bytes: less than the smallest layer.
const NO_LAYER: u64 = 25_000;

impl Measured {
    /// Why a tool's figures are missing.
    fn failures(&self) -> impl Iterator<Item = String> {
        let tools = [("skopeo", &self.skopeo), ("xtask", &self.xtask)];
        tools.into_iter().filter_map(|(tool, figures)| {
            figures.as_ref().err().map(|why| format!("not measured: {}: {tool}: {why}\n", self.case))
        })
    }

    /// What was wanted of this case, and whether it is met; nothing where it could not be measured.
    fn verdicts(&self) -> Vec<Verdict> {
        let (Ok(skopeo), Ok(xtask), Some(target)) = (&self.skopeo, &self.xtask, self.target) else {
            return Vec::new();
        };
        let (name, value, most) = match target {
            Target::Cpu(most) => ("CPU", xtask.median.cpu / skopeo.median.cpu, most),
            Target::Wall(most) => ("wall", xtask.median.wall / skopeo.median.wall, most),
        };
        let verdict = |what: &str, target: String, value, met| {
            let what = format!("{}: {what}", self.case);
            Verdict { what, target, value, met }
        };
        let mut verdicts = vec![verdict(&format!("{name} ratio"), format!("{most}"), value, value <= most)];
        if self.no_layer {
            let kilobytes = format!("{} kB, no layer", NO_LAYER / 1000);
            verdicts.push(verdict("sent, kB", kilobytes, xtask.sent as f64 / 1e3, xtask.sent <= NO_LAYER));
        }
        verdicts
    }
}

fn verdicts(results: &[Measured]) -> Vec<Verdict> {
    let mut verdicts: Vec<_> = results.iter().flat_map(Measured::verdicts).collect();
    let peaks = results.iter().filter_map(|result| result.xtask.as_ref().ok()).map(|own| own.median.peak);
    if let Some(peak) = peaks.max() {
        let (what, target) = ("peak memory of all cases, MB".to_owned(), format!("{}", PEAK / 1_000_000));
        verdicts.push(Verdict { what, target, value: peak as f64 / 1e6, met: peak <= PEAK });
    }
    verdicts
}

pub fn text(results: &[Measured], rounds: usize) -> String {
    let mut figures =
        table(&["case", "tool", "wall s", "CPU s", "peak MB", "sent MB", "wall ratio", "CPU ratio"]);
    for result in results {
        figures.add_row(row(result.case, "skopeo", &result.skopeo, ["1".to_owned(), "1".to_owned()]));
        let ratio = |figure: fn(&Figures) -> f64| match (&result.skopeo, &result.xtask) {
            (Ok(skopeo), Ok(xtask)) => format!("{:.3}", figure(xtask) / figure(skopeo)),
            _ => "-".to_owned(),
        };
        let ratios = [ratio(|figures| figures.median.wall), ratio(|figures| figures.median.cpu)];
        figures.add_row(row("", "xtask", &result.xtask, ratios));
    }
    let wanted = tables::wanted(verdicts(results));
    let failures: String = results.iter().flat_map(Measured::failures).collect();
    let [figures, wanted] = [figures, wanted].map(|table| table.trim_fmt());
    format!(
        "{}; medians of {rounds} rounds, in turns; a docker-archive of 197 MB, 30 layers\n\n{figures}\n\n{failures}\n{wanted}",
        profile()
    )
}

pub fn json(results: &[Measured], rounds: usize) -> Value {
    let wanted = tables::json(&verdicts(results));
    json!({ "build": profile(), "rounds": rounds, "cases": results, "wanted": wanted })
}

fn row(case: &str, tool: &str, figures: &Result<Figures, String>, ratios: [String; 2]) -> Vec<String> {
    let mut row = vec![case.to_owned(), tool.to_owned()];
    match figures {
        Ok(Figures { median, sent }) => {
            let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
            row.extend([format!("{:.3}", median.wall), format!("{:.3}", median.cpu)]);
            row.extend([megabytes(median.peak), format!("{:.3}", *sent as f64 / 1e6)]);
            row.extend(ratios);
        }
        Err(_) => row.resize(8, "-".to_owned()),
    }
    row
}
