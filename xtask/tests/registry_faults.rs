//! `image push` while the network and the registry fail: a real docker-registry behind a proxy that does harm to chosen
//! requests. A push completes with the right digest, or says why not and leaves every tag as it was or right; running it
//! again completes it.
//!
//! DOJO_FAULTS says how many rounds are played; DOJO_SEED repeats those of a failure.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/pushed.rs"]
mod pushed;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::process::Output;
use std::sync::Mutex;
use std::time::Duration;

use docker_registry::{PASSWORD, Registry, Tokens, USER};
use fastrand::Rng;
use project::{Project, failed, succeeded};
use proxy::{Harm, Proxy};
use pushed::Made;
use server::Answer;

const NAME: &str = "team/dojo";
const LANES: u64 = 6;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

fn rounds(usual: u64) -> u64 {
    number("DOJO_FAULTS").unwrap_or(usual)
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    Answer::new(status).header("Content-Type", "application/json").body(&body.to_string())
}

/// Some harm that passes: the same request, sent again, may well succeed.
fn passing(rng: &mut Rng, line: &str) -> Harm {
    match rng.u32(0..14) {
        0 => Harm::Cut,
        1 => Harm::CutUpload,
        2 => Harm::LoseAnswer,
        3 => Harm::CutAnswer,
        4 => Harm::Delay(Duration::from_millis(rng.u64(1..300))),
        5 => Harm::Instead(Answer::new(429).header("Retry-After", "1")),
        // As ghcr.io says it: no header, and a duration as Go writes them.
        6 => Harm::Instead(error(429, "TOOMANYREQUESTS", "retry-after: 421.7ms, allowed: 44000/minute")),
        7 => Harm::Instead(error(403, "DENIED", "You have exceeded a secondary rate limit")),
        8 => Harm::Instead(Answer::new(500)),
        9 => Harm::Instead(Answer::new(503).header("Retry-After", "0")),
        10 => Harm::Deny(Answer::new(500)),
        11 => Harm::Deny(Answer::new(503).body("<html>busy</html>")),
        12 => Harm::Strip,
        _ if line.starts_with("PUT") && line.contains("/manifests/") => Harm::Instead(error(
            rng.choice([400, 404]).unwrap(),
            "MANIFEST_BLOB_UNKNOWN",
            "blob unknown to registry",
        )),
        _ => Harm::None,
    }
}

fn push(project: &Project, repository: &str, made: &Made, tags: &[&str]) -> Output {
    let archive = made.path.to_str().unwrap();
    let mut args = vec!["image", "push", "--archive", archive, "--repository", repository, "--json"];
    tags.iter().for_each(|tag| args.extend(["--tag", tag]));
    project.xtask(&args).output().unwrap()
}

/// What a push that failed may say: one line, and what to do next; before that, what it waited for.
fn is_clear(said: &str) -> bool {
    let lines: Vec<_> = said.lines().skip_while(|line| line.starts_with("note: trying again in ")).collect();
    let rest_is_help = lines.iter().skip(1).all(|line| line.starts_with("help: "));
    lines.first().is_some_and(|line| line.starts_with("error: ")) && lines.len() <= 2 && rest_is_help
}

fn digest_of(output: &Output) -> String {
    let told: serde_json::Value = serde_json::from_str(&succeeded(&["image", "push"], output)).unwrap();
    told["digest"].as_str().unwrap().to_owned()
}

/// Plays `rounds` rounds in a few repositories side by side, since most of a round is waiting.
fn play(registry: &Registry, login: bool, rounds: u64) {
    let seed = seed();
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || {
                let (project, name) = (Project::new(), format!("team/dojo-{lane}"));
                for round in (lane..rounds).step_by(LANES as usize) {
                    play_round(registry, &project, &name, login.then_some(PASSWORD), seed, round);
                }
            });
        }
    });
}

/// An image under a new tag and over an old one, while requests fail by chance.
fn play_round(
    registry: &Registry,
    project: &Project,
    name: &str,
    password: Option<&str>,
    seed: u64,
    round: u64,
) {
    let made = Made::new(project, round);
    let before = registry.tag(name, "edge");
    let often = Rng::with_seed(seed ^ round).f32() * 0.5;
    let rng = Mutex::new(Rng::with_seed(seed ^ (round << 32)));
    let proxy = Proxy::start(&registry.host, move |_, line| {
        let mut rng = rng.lock().unwrap();
        if rng.f32() < often { passing(&mut rng, line) } else { Harm::None }
    });
    if let Some(password) = password {
        project.log_in(&proxy.host, USER, password);
    }
    let tag = made.sha_tag();
    let run = || push(project, &format!("{}/{name}", proxy.host), &made, &[&tag, "edge"]);
    let output = run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let story = || {
        let seen: Vec<_> = proxy.seen().iter().map(|seen| format!("{} {:?}", seen.line, seen.harm)).collect();
        format!("DOJO_SEED={seed}, round {round}, {}\n{said}\n{}", output.status, seen.join("\n"))
    };
    let named = ["edge", &tag].map(|tag| registry.tag(name, tag));
    if output.status.success() {
        assert_eq!(named, [Some(digest_of(&output)), Some(digest_of(&output))], "{}", story());
    } else {
        // A password that is turned away twice in a row is wrong.
        let stripped = proxy.seen().iter().filter(|seen| matches!(seen.harm, Harm::Strip)).count();
        let turned_away = output.status.code() == Some(2) && said.contains("401") && stripped >= 2;
        assert!(output.status.code() == Some(1) || turned_away, "{}", story());
        assert!(is_clear(&said), "{}", story());
    }
    proxy.be_honest();
    let again = run();
    assert!(again.status.success(), "{}\nand then: {}", story(), String::from_utf8_lossy(&again.stderr));
    let right = digest_of(&again);
    assert!(named[0] == before || named[0].as_ref() == Some(&right), "edge was {named:?}\n{}", story());
    assert!(named[1].as_ref().is_none_or(|named| *named == right), "{tag} was {named:?}\n{}", story());
    made.is_complete(registry, name, &right).unwrap_or_else(|why| panic!("{why}\n{}", story()));
    assert_eq!(["edge", &tag].map(|tag| registry.tag(name, tag)), [Some(right.clone()), Some(right)]);
    let harmed = proxy.seen().iter().filter(|seen| !matches!(seen.harm, Harm::None)).count();
    println!("round {round}: {harmed} requests harmed, {}", output.status);
}

fn seed() -> u64 {
    number("DOJO_SEED").unwrap_or_else(|| Rng::new().u64(..))
}

#[test]
fn an_open_registry_that_fails_by_chance_names_nothing_wrong() {
    if tools::need("docker-registry", "docker-registry") {
        play(&Registry::open(), false, rounds(6));
    }
}

#[test]
fn a_registry_with_a_password_that_fails_by_chance_names_nothing_wrong() {
    if tools::need("docker-registry", "docker-registry") {
        play(&Registry::with_password(), true, rounds(6));
    }
}

#[test]
fn tokens_that_run_out_under_way_name_nothing_wrong() {
    if tools::need("docker-registry", "docker-registry") && tools::need("openssl", "openssl") {
        let tokens = Tokens { lifetime: 2, push: true, stumbles: 4 };
        play(&Registry::with_tokens_of(tokens), true, rounds(6));
    }
}

/// Harms each request in turn: one failure alone never stops a push.
fn sweep(registry: &Registry, login: bool, tries: u64, choose: fn(&mut Rng, &str) -> Harm) {
    let seed = seed();
    let survive = |lane: u64| {
        let (project, name) = (Project::new(), format!("team/sweep-{lane}"));
        for number in (lane..tries).step_by(LANES as usize) {
            // A push of two layers under two tags is about 16 requests.
            let (made, at) = (Made::small(&project, number), number as usize % 16 + 1);
            let rng = Mutex::new(Rng::with_seed(seed ^ number));
            let proxy = Proxy::start(&registry.host, move |nth, line| {
                if nth == at { choose(&mut rng.lock().unwrap(), line) } else { Harm::None }
            });
            if login {
                project.log_in(&proxy.host, USER, PASSWORD);
            }
            let tag = made.sha_tag();
            let output = push(&project, &format!("{}/{name}", proxy.host), &made, &[&tag, "edge"]);
            let (seen, said) = (proxy.seen(), String::from_utf8_lossy(&output.stderr));
            let story = format!("DOJO_SEED={seed}, {number}: {said}\n{:#?} of {seen:#?}", seen.get(at - 1));
            assert!(output.status.success(), "{story}");
            let digest = digest_of(&output);
            made.is_complete(registry, &name, &digest).unwrap_or_else(|why| panic!("{why}\n{story}"));
            assert_eq!(
                ["edge", &tag].map(|tag| registry.tag(&name, tag)),
                [Some(digest.clone()), Some(digest)]
            );
        }
    };
    let survive = &survive;
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || survive(lane));
        }
    });
}

#[test]
fn one_failure_at_any_request_is_survived() {
    if tools::need("docker-registry", "docker-registry") {
        sweep(&Registry::open(), false, rounds(24), passing);
    }
}

#[test]
fn credentials_that_run_out_at_any_request_are_renewed() {
    if tools::need("docker-registry", "docker-registry") && tools::need("openssl", "openssl") {
        sweep(&Registry::with_tokens(), true, 16, |_, _| Harm::Strip);
    }
}

#[test]
fn a_rate_limit_is_waited_for_and_a_refusal_is_not_tried_again() {
    if !tools::need("docker-registry", "docker-registry") {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::small(&project, 0);
    let limits = [
        Answer::new(429).header("Retry-After", "7"),
        error(429, "TOOMANYREQUESTS", "retry-after: 1.9s, allowed: 44000/minute"),
        Answer::new(503).header("Retry-After", "2"),
    ];
    for limit in limits {
        let answer = limit.clone();
        let first = Mutex::new(true);
        let proxy = Proxy::start(&registry.host, move |_, line| {
            let is_manifest = line.starts_with("PUT") && line.contains("/manifests/");
            let strike = is_manifest && std::mem::take(&mut *first.lock().unwrap());
            if strike { Harm::Instead(answer.clone()) } else { Harm::None }
        });
        let repository = format!("{}/{NAME}", proxy.host);
        let output = push(&project, &repository, &made, &["edge"]);
        digest_of(&output);
        // Who waits long is told why.
        let said = String::from_utf8_lossy(&output.stderr);
        let long = format!("{limit:?}").contains("Retry-After: 7");
        assert_eq!(said.contains("note: trying again in 7 s: PUT http://"), long, "{said}");
        let puts: Vec<_> = proxy
            .seen()
            .into_iter()
            .filter(|seen| seen.line.contains("PUT /v2/team/dojo/manifests"))
            .collect();
        assert!(puts.len() == 2, "{puts:?}");
        assert!(puts[1].at - puts[0].at >= Duration::from_millis(1900), "{limit:?}: {puts:?}");
    }

    for (message, code, tried_again) in
        [("You have exceeded a secondary rate limit", 1, true), ("not yours", 2, false)]
    {
        let refusal = error(403, "DENIED", message);
        let proxy = Proxy::start(&registry.host, move |_, line| {
            if line.starts_with("PUT") { Harm::Instead(refusal.clone()) } else { Harm::None }
        });
        let repository = format!("{}/{NAME}", proxy.host);
        let said = failed(code, &["image", "push"], &push(&project, &repository, &made, &["other"]));
        assert!(said.contains(message) && is_clear(&said), "{said}");
        let puts = proxy.seen().iter().filter(|seen| seen.line.starts_with("PUT")).count();
        assert_eq!(puts > 1, tried_again, "{message}: {puts} tries");
        assert_eq!(registry.tag(NAME, "other"), None);
    }
}
