//! What can be done now, and the exact command for it.

use super::page::{Action, Next, Stage, Tone};
use crate::pipeline::Accepts;
use crate::situation::{Facts, Situation, State};
use crate::version::Version;

/// The exact command for each step that makes sense now. `stages`: the branch, `edge`, and an environment for each
/// situation.
pub fn offer(stages: &mut [Stage], situations: &[Situation]) {
    if let Some(branch) = stages.first_mut().filter(|branch| branch.tone != Tone::Unknown) {
        branch.actions = vec![action("cut a release", "release --bump minor")];
    }
    for (index, situation) in situations.iter().enumerate() {
        let actions = actions_of(situation, &situations[..index]);
        if let Some(stage) = stages.get_mut(index + 2) {
            stage.actions = actions;
        }
    }
}

fn action(what: impl Into<String>, command: &str) -> Action {
    Action { what: what.into(), command: format!("cargo xtask {command}") }
}

fn actions_of(situation: &Situation, earlier: &[Situation]) -> Vec<Action> {
    let facts = &situation.facts;
    let name = &facts.environment.name;
    if facts.infra.is_err() {
        return Vec::new();
    }
    let safe = situation.safe.iter().find(|one| one.opens == Some(true) && !one.bad);
    let back = |how: &str| {
        safe.map(|safe| {
            action(format!("go back to {}", safe.tag), &format!("rollback {name} --to {}{how}", safe.tag))
        })
    };
    if facts.hold().is_some() {
        let mut actions = vec![action("let it be changed again", &format!("unhold {name}"))];
        actions
            .extend(back(" --override hold --because \"REASON\"").filter(|back| is_harmless(&back.command)));
        return actions;
    }
    let mut actions = Vec::new();
    match &facts.environment.after {
        None => actions.push(action("give it the newest that it takes", &format!("promote {name}"))),
        Some(before) => {
            let found = earlier.iter().find(|one| one.facts.environment.name == *before);
            if let Some(tag) = found.and_then(|found| handed_on(found, facts)) {
                actions.push(action(
                    format!("give it {tag}, which {before} runs"),
                    &format!("promote {name} {tag}"),
                ));
            }
        }
    }
    actions.extend(back(""));
    actions.push(action("let nobody change it", &format!("hold {name} \"REASON\"")));
    actions.retain(|action| is_harmless(&action.command));
    actions
}

/// What the environment before runs, if this one would take it and has something else.
fn handed_on<'a>(before: &'a Situation, facts: &Facts) -> Option<&'a str> {
    let pin = before.facts.pin().filter(|pin| before.state == State::Ok && !pin.is_nothing())?;
    let tag = pin.tag.as_deref()?;
    let kind = if Version::from_tag(tag).is_some() { Accepts::Release } else { Accepts::Sha };
    (facts.pin() != Some(pin) && facts.environment.accepts.contains(&kind)).then_some(tag)
}

/// A command only if all of it is one: a copy button takes it as it stands.
pub fn next(text: &str) -> Next {
    let is_command = ["cargo xtask ", "kubectl "].iter().any(|start| text.starts_with(start));
    match is_command && is_harmless(text) && ![", ", ": "].iter().any(|prose| text.contains(prose)) {
        true => Next::Command(text.to_owned()),
        false => Next::Advice(text.to_owned()),
    }
}

/// Whether a shell would start no other command of it: names of tags come from whoever may write the infra repository.
fn is_harmless(command: &str) -> bool {
    !command.contains(|c: char| ";|&$<>`\\#!()".contains(c) || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_and_harmless_command_is_one() {
        let is_command = |text| matches!(next(text), Next::Command(_));
        assert!(is_command("cargo xtask rollback production --to v0.1.0"));
        assert!(is_command("kubectl --context home -n dojo get pods,events"));
        for advice in [
            "cargo xtask adopt production, which writes what runs",
            "cargo xtask promote production v1;reboot",
            "cargo xtask promote production $(reboot)",
            "see the Ingress",
        ] {
            assert!(!is_command(advice), "{advice}");
        }
    }
}
