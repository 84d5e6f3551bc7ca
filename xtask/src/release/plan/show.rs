//! A plan as people read it, and as programs do.

use std::fmt;

use serde::Serialize;

use super::{Plan, Planned, Progress};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "release {} from {}", self.version, self.branch)?;
        if let Some(about) = &self.about {
            write!(f, ": {about}")?;
        }
        let next = self.next().map(|planned| planned.step);
        for (number, Planned { step, progress, what }) in self.steps.iter().enumerate() {
            let (state, why) = match progress {
                Progress::Done => ("done", None),
                Progress::ToDo => ("to do", None),
                Progress::Waiting(why) => ("waits", Some(why.clone())),
                Progress::Unknown(fault) => ("unknown", Some(fault.to_string().replace('\n', "; "))),
            };
            // What a later step waits for is the earlier one.
            let why = why.filter(|_| Some(*step) == next);
            let state = if why.is_none() && state != "done" { "to do" } else { state };
            write!(f, "\n  {}  {state:7}  {what}", number + 1)?;
            if let Some(why) = why {
                write!(f, "\n              {why}")?;
            }
        }
        if let Some(draft) = &self.draft {
            write!(f, "\n  notes    drafted, since [Unreleased] of CHANGELOG.md says nothing:")?;
            for line in draft.lines() {
                write!(f, "\n           {line}")?;
            }
        }
        for pass in &self.passed {
            write!(f, "\n  passed   {} because {}", pass.gate, pass.because)?;
        }
        Ok(())
    }
}

impl Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let step = |Planned { step, progress, what }: &Planned| {
            let (state, why) = match progress {
                Progress::Done => ("done", None),
                Progress::ToDo => ("todo", None),
                Progress::Waiting(why) => ("waiting", Some(why.clone())),
                Progress::Unknown(fault) => ("unknown", Some(fault.to_string())),
            };
            serde_json::json!({ "step": step, "state": state, "what": what, "why": why })
        };
        let steps: Vec<_> = self.steps.iter().map(step).collect();
        let plan = serde_json::json!({ "version": self.version, "branch": self.branch, "commit": self.commit,
            "digest": self.digest, "draft": self.draft, "steps": steps, "passed": self.passed });
        plan.serialize(serializer)
    }
}
