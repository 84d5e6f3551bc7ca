//! The running service, asked over HTTP. It is only ever read.

use std::time::Duration;

use crate::report::{Observed, Report, Version};

/// How long one answer may take; a service that is slower is reported as silent.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `/version` and `/readyz` below `url`. Never fails: no answer is an observation too.
pub fn observe(url: &str) -> Observed {
    let url = url.trim_end_matches('/');
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // A login page somewhere else is not the service.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("dojo-xtask/", env!("CARGO_PKG_VERSION")));
    // A proxy cannot reach this machine's own services.
    let config = if is_loopback(url) { config.proxy(None) } else { config };
    let agent: ureq::Agent = config.build().into();
    let version = match get_version(&agent, &format!("{url}/version")) {
        Ok(version) => version,
        Err(problem) => return Observed::Silent(problem),
    };
    let ready = agent.get(format!("{url}/readyz")).call().is_ok_and(|answer| answer.status() == 200);
    Observed::Reports(Report { version, ready })
}

fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>().ok();
    let host = uri.as_ref().and_then(ureq::http::Uri::host).unwrap_or_default();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn get_version(agent: &ureq::Agent, url: &str) -> Result<Version, String> {
    let mut answer = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
    if answer.status() != 200 {
        return Err(format!("{url}: HTTP status {}", answer.status().as_u16()));
    }
    let version: Version =
        answer.body_mut().read_json().map_err(|error| format!("{url}: not the answer of dojo: {error}"))?;
    // What goes into commits and tables.
    let backups = version.backups.iter().flatten().flat_map(|backup| [&backup.id, &backup.made_at]);
    let words = [&version.version, &version.commit, &version.ledger.id].into_iter().chain(backups);
    let odd = |word: &&String| word.len() > 128 || word.chars().any(char::is_control);
    if words.into_iter().any(|word| odd(&word)) {
        return Err(format!("{url}: not the answer of dojo: a name in it is too long, or no text"));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_the_host() {
        for (url, loopback) in [
            ("http://127.0.0.1:8000", true),
            ("http://[::1]:8000/", true),
            ("http://localhost", true),
            ("https://dojo.example.com", false),
            ("https://127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(url), loopback, "{url}");
        }
    }

    #[test]
    fn nobody_listening_is_silence_with_the_url() {
        let Observed::Silent(why) = observe("http://127.0.0.1:1/") else { panic!("somebody answered") };
        assert!(why.starts_with("http://127.0.0.1:1/version: "), "{why}");
    }
}
