//! What stands against a release, all at once and each with its remedy.

use super::{Candidate, Facts, GithubFacts, proposal_branch, short};
use crate::checks::State;
use crate::fault::Fault;
use crate::gate::{Override, ReleaseGate};
use crate::version::Version;

/// Something that stands against the release, and its remedy; without a gate it cannot be passed.
struct Problem(Option<ReleaseGate>, String, String);

/// The gates that are not met and are passed, or a refusal with every problem that is left.
pub fn passed(facts: &Facts, chosen: Option<&Candidate>) -> Result<Vec<Override<ReleaseGate>>, Fault> {
    let mut problems = match chosen {
        Some(chosen) => problems_of_candidate(facts, chosen),
        None => problems_of_tree(facts),
    };
    problems.extend(problem_of_name(facts, chosen));
    let mut passed: Vec<Override<ReleaseGate>> = Vec::new();
    problems.retain(|Problem(gate, ..)| {
        let pass = facts.overrides.iter().find(|pass| Some(pass.gate) == *gate);
        if let Some(pass) = pass.filter(|pass| !passed.contains(pass)) {
            passed.push(pass.clone());
        }
        pass.is_none()
    });
    if problems.is_empty() { Ok(passed) } else { Err(refusal(&facts.version, problems)) }
}

fn refusal(version: &Version, problems: Vec<Problem>) -> Fault {
    let mut gates: Vec<_> = problems.iter().filter_map(|Problem(gate, ..)| *gate).collect();
    gates.dedup();
    let several = problems.len() > 1;
    let number = |index: usize| if several { format!("({}) ", index + 1) } else { String::new() };
    let numbered = problems.into_iter().enumerate();
    let (what, mut help): (Vec<_>, Vec<_>) = numbered
        .map(|(index, Problem(_, what, help))| (number(index) + &what, number(index) + &help))
        .unzip();
    if !gates.is_empty() {
        let gates: Vec<_> = gates.iter().map(|gate| format!("--override {gate}")).collect();
        help.push(format!("if it must be now: {} --because \"…\", which the tag will tell", gates.join(" ")));
    }
    Fault::refused(format!("cannot release {version}: {}", what.join("; "))).help(help.join("\n      "))
}

fn problems_of_candidate(facts: &Facts, chosen: &Candidate) -> Vec<Problem> {
    let Facts { version, tag, branch, .. } = facts;
    let mut problems = Vec::new();
    if let Some(own) = facts.local_tag.as_deref().filter(|own| *own != chosen.commit) {
        problems.push(Problem(
            None,
            format!("your own tag {tag} names {}, not {}", short(own), short(&chosen.commit)),
            format!("git tag --delete {tag}"),
        ));
    }
    let passes = facts.overridden(ReleaseGate::Checks);
    if facts.remote_tag.is_none()
        && let Err(fault) = &chosen.checks
        && passes
    {
        problems.push(Problem(Some(ReleaseGate::Checks), fault.to_string(), String::new()));
    }
    if facts.remote_tag.is_none()
        && let Ok(checks) = &chosen.checks
    {
        // What may still come is waited for, unless it is passed.
        let bad = checks.iter().filter(|check| match check.state {
            State::Red => true,
            State::Green => false,
            State::Pending | State::Missing => passes,
        });
        problems.extend(bad.map(|check| {
            Problem(
                Some(ReleaseGate::Checks),
                format!("on {} {check}", short(&chosen.commit)),
                format!("mend it on {branch}, or run it again there: the first green commit that still says {version} is tagged"),
            )
        }));
    }
    problems
}

/// A version's name never moves, neither in git nor in the registry.
fn problem_of_name(facts: &Facts, chosen: Option<&Candidate>) -> Option<Problem> {
    let Ok(Some(published)) = &facts.published else { return None };
    let image = chosen.map(|chosen| &chosen.image);
    // Of an image that was cleaned away nothing can be said.
    let is_gone = facts.remote_tag.is_some() && matches!(image, Some(Ok(None)));
    let is_same = matches!(image, Some(Ok(Some(image))) if image == published);
    if matches!(image, Some(Err(_))) || is_gone || is_same {
        return None;
    }
    Some(Problem(
        None,
        format!("the registry has another image under {}: {published}", facts.version),
        match chosen {
            Some(_) => {
                "a version is never moved: revert the commit that prepared it, then release the next one"
                    .into()
            }
            None => "a version is never moved: release the next one".into(),
        },
    ))
}

fn problems_of_tree(facts: &Facts) -> Vec<Problem> {
    let Facts { version, tag, branch, series_branch: own, .. } = facts;
    let mut problems = Vec::new();
    if let Some(commit) = facts.remote_tag.as_ref().or(facts.local_tag.as_ref()) {
        let help = match facts.published {
            Ok(None) if facts.remote_tag.is_none() => format!("only you have it: git tag --delete {tag}"),
            Ok(None) => {
                format!("it was never published: git push --delete origin {tag}; git tag --delete {tag}")
            }
            _ => "a version is never moved: release the next one".to_owned(),
        };
        problems.push(Problem(
            None,
            format!("a tag {tag} stands on {}, which was not prepared to be {version}", short(commit)),
            help,
        ));
    }
    // Of a tag of this very version all is said.
    let by_hand = facts.remote_tag.is_some();
    if let Some(last) = facts.last.as_ref().filter(|last| *last > version || *last == version && !by_hand) {
        let text = format!("{last} is released already");
        let help = if own == branch {
            "choose a version above it".to_owned()
        } else {
            format!("choose a version above it; to mend an older one, push a branch {own} from it first")
        };
        problems.push(Problem(Some(ReleaseGate::Newer), text, help));
    } else if let Some(other) = &facts.under_way {
        problems.push(Problem(
            Some(ReleaseGate::Newer),
            format!("{branch} is prepared for {other}, which is not tagged yet"),
            format!(
                "finish that one first: cargo xtask release {other}; or revert the commit that prepared it"
            ),
        ));
    } else if facts.declared > *version {
        problems.push(Problem(
            Some(ReleaseGate::Newer),
            format!("{branch} says {} in Cargo.toml already", facts.declared),
            "choose a version above it".into(),
        ));
    }
    if let (Some((last, _)), 0) = (&facts.since, facts.commits) {
        let text = format!("{branch} has no commit since {last}");
        problems.push(Problem(Some(ReleaseGate::Changes), text, "there is nothing to release".into()));
    }
    if facts.on_branch.as_ref() != Some(branch) {
        let on = facts.on_branch.as_deref().unwrap_or("a detached HEAD");
        let (what, help) = if on == own {
            let what = format!("you are on {on}, which the remote does not have");
            (what, format!("git push --set-upstream origin {own}"))
        } else {
            (format!("you are on {on}; {version} is cut from {branch}"), format!("git switch {branch}"))
        };
        problems.push(Problem(Some(ReleaseGate::Branch), what, help));
    } else if facts.head != facts.remote_head {
        problems.push(Problem(
            Some(ReleaseGate::Synced),
            format!("HEAD is {}, the remote's {branch} is {}", short(&facts.head), short(&facts.remote_head)),
            "git pull --rebase, then git push".into(),
        ));
    }
    if !facts.dirty.is_empty() {
        let paths = facts.dirty.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if facts.dirty.len() > 5 { ", …" } else { "" };
        problems.push(Problem(
            Some(ReleaseGate::Clean),
            format!("what differs from HEAD ({}): {paths}{more}", facts.dirty.len()),
            "commit or stash them".into(),
        ));
    }
    if let Err(fault) = &facts.notes {
        let text = fault.to_string();
        let (what, help) = text.split_once("\nhelp: ").unwrap_or((&text, "mend the file on the branch"));
        problems.push(Problem(None, what.to_owned(), help.to_owned()));
    }
    if let Some(GithubFacts { proposal: Ok(Some(proposal)), .. }) = &facts.github
        && !proposal.open
        && !proposal.merged
    {
        problems.push(Problem(
            None,
            format!("{} was closed and not merged", proposal.url),
            format!("reopen it; or git push --delete origin {}, and run this again", proposal_branch(tag)),
        ));
    }
    problems
}
