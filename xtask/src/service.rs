//! The running service, asked over HTTP. It is only ever read.

use std::time::Duration;

use crate::report::{Observed, Report, Version};

/// How long one answer may take; a service that is slower is reported as silent.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `/version` and `/readyz` below `url`. Never fails: no answer is an observation too.
pub fn observe(url: &str) -> Observed {
    let url = url.trim_end_matches('/');
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .user_agent(concat!("dojo-xtask/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let version = match get_version(&agent, &format!("{url}/version")) {
        Ok(version) => version,
        Err(problem) => return Observed::Silent(problem),
    };
    let ready = agent.get(format!("{url}/readyz")).call().is_ok_and(|answer| answer.status() == 200);
    Observed::Reports(Report { version, ready })
}

fn get_version(agent: &ureq::Agent, url: &str) -> Result<Version, String> {
    let mut answer = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
    if answer.status() != 200 {
        return Err(format!("{url}: HTTP status {}", answer.status().as_u16()));
    }
    answer.body_mut().read_json().map_err(|error| format!("{url}: not the answer of dojo: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listening_is_silence_with_the_url() {
        let Observed::Silent(why) = observe("http://127.0.0.1:1/") else { panic!("somebody answered") };
        assert!(why.starts_with("http://127.0.0.1:1/version: "), "{why}");
    }
}
