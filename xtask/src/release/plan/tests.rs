use super::*;
use crate::checks::Check;

const OWN: &str = "https://github.com/blogle/dojo";

fn commit(digit: &str) -> String {
    digit.repeat(40)
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn check(name: &str, state: State, said: &str) -> Check {
    Check { name: name.into(), state, said: said.into(), url: format!("{OWN}/{name}") }
}

fn run(status: &str, conclusion: Option<&str>) -> WorkflowRun {
    WorkflowRun {
        id: 7,
        status: Some(status.into()),
        conclusion: conclusion.map(str::to_owned),
        html_url: format!("{OWN}/runs/7"),
        head_branch: Some("v0.2.0".into()),
        path: ".github/workflows/ci.yml".into(),
        run_attempt: Some(1),
    }
}

/// A branch with commits since v0.1.0, and nothing of v0.2.0.
fn fresh() -> Facts {
    Facts {
        version: version("v0.2.0"),
        tag: "v0.2.0".into(),
        series_branch: "release/0.2".into(),
        branch: "master".into(),
        on_branch: Some("master".into()),
        dirty: vec![],
        head: commit("a"),
        remote_head: commit("a"),
        last: Some(version("v0.1.0")),
        since: Some((version("v0.1.0"), commit("0"))),
        commits: 3,
        declared: version("v0.1.0"),
        under_way: None,
        notes: Ok(None),
        candidates: vec![],
        local_tag: None,
        remote_tag: None,
        published: Ok(None),
        latest: Ok(true),
        github: Some(GithubFacts {
            protected: Ok(false),
            proposal: Ok(None),
            page: Ok(PageState::Absent),
            run: Ok(None),
            tag_age: Some(Duration::ZERO),
            runs_page: format!("{OWN}/actions"),
        }),
        overrides: vec![],
    }
}

fn candidate(digit: &str, state: State) -> Candidate {
    let said = if state == State::Green { "success" } else { "not" };
    Candidate {
        commit: commit(digit),
        checks: Ok(vec![check("test", state, said)]),
        image: Ok((state == State::Green).then(|| Digest::of(b"image"))),
    }
}

fn prepared(candidates: Vec<Candidate>) -> Facts {
    Facts { candidates, remote_head: commit("f"), declared: version("v0.2.0"), ..fresh() }
}

fn tagged() -> Facts {
    let facts = prepared(vec![candidate("b", State::Green)]);
    let last = Some(version("v0.2.0"));
    Facts { remote_tag: Some(commit("b")), local_tag: Some(commit("b")), last, ..facts }
}

fn github(facts: &Facts, change: impl FnOnce(&mut GithubFacts)) -> Facts {
    let mut facts = facts.clone();
    change(facts.github.as_mut().unwrap());
    facts
}

fn next(facts: &Facts) -> Option<(Step, Progress)> {
    plan(facts).unwrap().next().map(|planned| (planned.step, planned.progress.clone()))
}

fn waits(facts: &Facts) -> (Step, String) {
    match next(facts) {
        Some((step, Progress::Waiting(why))) => (step, why),
        other => panic!("{other:?}"),
    }
}

fn refused(facts: &Facts) -> String {
    plan(facts).unwrap_err().to_string()
}

fn overriding(facts: Facts, gate: ReleaseGate) -> Facts {
    Facts { overrides: vec![Override { gate, because: "I say so".into() }], ..facts }
}

#[test]
fn each_state_has_its_next_step() {
    assert_eq!(next(&fresh()), Some((Step::Prepare, Progress::ToDo)));
    let waiting = prepared(vec![candidate("b", State::Pending)]);
    assert_eq!(waits(&waiting), (Step::Ci, format!("check test is not, {OWN}/test")));
    let mut imageless = candidate("b", State::Green);
    imageless.image = Ok(None);
    assert_eq!(
        waits(&prepared(vec![imageless])),
        (Step::Ci, "the registry has no sha-bbbbbbbbbbbb yet".into())
    );
    assert_eq!(next(&prepared(vec![candidate("b", State::Green)])), Some((Step::Tag, Progress::ToDo)));
    assert_eq!(waits(&tagged()), (Step::Publish, format!("the tag's run has not begun yet: {OWN}/actions")));
    let named = Facts { published: Ok(Some(Digest::of(b"image"))), ..tagged() };
    let running = github(&named, |github| github.run = Ok(Some(run("in_progress", None))));
    assert_eq!(waits(&running), (Step::Publish, format!("the tag's run is in_progress: {OWN}/runs/7")));
    let published = |complete| PageState::Published { url: String::new(), complete };
    let done = github(&named, |github| github.page = Ok(published(true)));
    assert_eq!(next(&done), None);
    // Somebody published it by hand, half-way.
    let half = github(&running, |github| github.page = Ok(published(false)));
    assert_eq!(waits(&half).0, Step::Publish);
    assert_eq!(next(&Facts { github: None, ..named.clone() }), None);
    // CI was killed between the two names.
    let half = Facts { latest: Ok(false), github: None, ..named };
    assert_eq!(waits(&half), (Step::Publish, "the registry does not have all names of v0.2.0 yet".into()));
}

#[test]
fn a_run_that_died_or_never_began_is_started_again() {
    let now = Some(Duration::ZERO);
    for (run, age) in [
        (Some(run("completed", Some("failure"))), now),
        (Some(run("completed", Some("cancelled"))), now),
        // It went well, and yet the release is not there: somebody took it away.
        (Some(run("completed", Some("success"))), now),
        (None, Some(START * 2)),
        // A lightweight tag, or a clock that is ahead.
        (None, None),
    ] {
        let facts = github(&tagged(), |github| (github.run, github.tag_age) = (Ok(run.clone()), age));
        assert_eq!(next(&facts), Some((Step::Restart, Progress::ToDo)), "{run:?}");
    }
}

#[test]
fn a_protected_branch_gets_a_pull_request() {
    let facts = github(&fresh(), |github| github.protected = Ok(true));
    assert_eq!(next(&facts), Some((Step::Propose, Progress::ToDo)));
    let proposal = |open, merged| Proposal { url: format!("{OWN}/pull/3"), open, merged };
    let proposed = |proposal| github(&facts, |github| github.proposal = Ok(Some(proposal)));
    assert_eq!(
        waits(&proposed(proposal(true, false))),
        (Step::Merge, format!("nobody has merged {OWN}/pull/3 yet"))
    );
    assert!(waits(&proposed(proposal(false, true))).1.contains("does not carry v0.2.0 yet"));
    assert!(refused(&proposed(proposal(false, false))).contains("pull/3 was closed and not merged"));
    // Where it cannot be known, nobody's push goes past a rule unseen.
    let fault = Fault::remote("no answer");
    for unknown in [
        github(&fresh(), |github| github.protected = Err(fault.clone())),
        github(&fresh(), |github| github.proposal = Err(fault.clone())),
        github(&fresh(), |github| (github.protected, github.proposal) = (Ok(true), Err(fault.clone()))),
    ] {
        assert_eq!(next(&unknown), Some((Step::Prepare, Progress::Unknown(fault.clone()))));
    }
}

#[test]
fn the_oldest_commit_that_is_ready_is_tagged() {
    let red = candidate("b", State::Red);
    let facts = prepared(vec![red.clone(), candidate("c", State::Green)]);
    assert_eq!(plan(&facts).unwrap().commit, Some(commit("c")));
    let waiting = prepared(vec![red.clone(), candidate("c", State::Pending)]);
    assert_eq!(waits(&waiting).0, Step::Ci);
    // Two fixes in one push: CI runs on the second alone.
    let skipped = vec![red.clone(), candidate("c", State::Missing), candidate("d", State::Green)];
    assert_eq!(plan(&prepared(skipped)).unwrap().commit, Some(commit("d")));
    let both = vec![candidate("b", State::Green), candidate("c", State::Green)];
    assert_eq!(plan(&prepared(both)).unwrap().commit, Some(commit("b")));
    let not_yet = prepared(vec![red.clone(), candidate("c", State::Missing)]);
    assert_eq!(waits(&not_yet), (Step::Ci, format!("check test is not, {OWN}/test")));
    let text = refused(&prepared(vec![red.clone()]));
    for part in
        ["on bbbbbbbbbbbb check test is not, ", "/test", "still says v0.2.0", "--override checks --because"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn whatever_is_not_green_is_passed_with_a_word() {
    for state in [State::Red, State::Pending, State::Missing] {
        let mut built = candidate("b", state);
        built.image = Ok(Some(Digest::of(b"image")));
        let passed = overriding(prepared(vec![built]), ReleaseGate::Checks);
        assert_eq!(next(&passed), Some((Step::Tag, Progress::ToDo)), "{state:?}");
        assert_eq!(plan(&passed).unwrap().passed, passed.overrides, "{state:?}");
    }
    let mut unknown = candidate("b", State::Green);
    unknown.checks = Err(Fault::remote("no answer"));
    let passed = overriding(prepared(vec![unknown]), ReleaseGate::Checks);
    assert_eq!(plan(&passed).unwrap().passed, passed.overrides);
    let green = overriding(prepared(vec![candidate("b", State::Green)]), ReleaseGate::Checks);
    assert_eq!(plan(&green).unwrap().passed, []);
    // Two checks, one word; and a green commit goes before one that must be passed.
    let mut red = candidate("b", State::Red);
    red.checks = Ok(vec![check("test", State::Red, "failure"), check("lint", State::Red, "failure")]);
    red.image = Ok(Some(Digest::of(b"image")));
    let passed = overriding(prepared(vec![red.clone()]), ReleaseGate::Checks);
    assert_eq!(plan(&passed).unwrap().passed, passed.overrides);
    let mended = overriding(prepared(vec![red, candidate("c", State::Green)]), ReleaseGate::Checks);
    assert_eq!(plan(&mended).unwrap().commit, Some(commit("c")));
}

#[test]
fn what_cannot_be_known_is_not_ready() {
    let gone = || Fault::remote("GET https://api.github.com/x: 502 Bad Gateway");
    let unknown = |facts: &Facts| match next(facts) {
        Some((step, Progress::Unknown(fault))) => {
            assert_eq!(fault, gone());
            step
        }
        other => panic!("{other:?}"),
    };
    let mut candidate = candidate("b", State::Green);
    candidate.checks = Err(gone());
    assert_eq!(unknown(&prepared(vec![candidate.clone()])), Step::Ci);
    (candidate.checks, candidate.image) = (Ok(vec![]), Err(gone()));
    assert_eq!(unknown(&prepared(vec![candidate.clone()])), Step::Ci);
    candidate.image = Ok(Some(Digest::of(b"image")));
    let facts = Facts { published: Err(gone()), ..prepared(vec![candidate]) };
    assert_eq!(unknown(&facts), Step::Tag);
    assert_eq!(unknown(&Facts { published: Err(gone()), ..tagged() }), Step::Publish);
    assert_eq!(unknown(&github(&tagged(), |github| github.page = Err(gone()))), Step::Publish);
    assert_eq!(unknown(&github(&tagged(), |github| github.run = Err(gone()))), Step::Publish);
}

#[test]
fn going_on_needs_no_clean_tree() {
    let facts = prepared(vec![candidate("b", State::Green)]);
    let facts = Facts { dirty: vec!["a.rs".into()], on_branch: None, ..facts };
    assert_eq!(next(&facts), Some((Step::Tag, Progress::ToDo)));
}

#[test]
fn every_problem_is_named_at_once_with_its_remedy() {
    let facts = Facts {
        dirty: vec!["dojo/src/main.rs".into()],
        head: commit("c"),
        last: Some(version("v0.2.0")),
        notes: Err(Fault::refused("CHANGELOG.md:1: there is no section").help("add one")),
        commits: 0,
        ..fresh()
    };
    let text = refused(&facts);
    for part in [
        "dojo/src/main.rs",
        "HEAD is cccccccccccc",
        "v0.2.0 is released already",
        "no commit since v0.1.0",
        "CHANGELOG.md:1: there is no section",
        "stash",
        "git pull",
        "add one",
        "--override newer --override changes --override synced --override clean",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let elsewhere = Facts { on_branch: Some("topic".into()), branch: "release/0.2".into(), ..fresh() };
    let text = refused(&elsewhere);
    assert!(text.contains("you are on topic; v0.2.0 is cut from release/0.2"), "{text}");
    assert!(text.contains("git switch release/0.2"), "{text}");
    let ahead = Facts { declared: version("v0.3.0"), ..fresh() };
    assert!(refused(&ahead).contains("master says v0.3.0 in Cargo.toml already"));
    let other = Facts { under_way: Some(version("v0.1.5")), ..fresh() };
    assert!(refused(&other).contains("master is prepared for v0.1.5, which is not tagged yet"));
    let unpushed = Facts { on_branch: Some("release/0.2".into()), ..fresh() };
    assert!(refused(&unpushed).contains("git push --set-upstream origin release/0.2"));
    let old = Facts { last: Some(version("v0.3.0")), ..fresh() };
    assert!(refused(&old).contains("push a branch release/0.2 from it first"));
}

#[test]
fn every_gate_can_be_passed_and_nothing_else() {
    type Spoil = fn(&mut Facts);
    let wrong: [(ReleaseGate, Spoil); 5] = [
        (ReleaseGate::Branch, |facts| facts.on_branch = None),
        (ReleaseGate::Clean, |facts| facts.dirty = vec!["a.rs".into()]),
        (ReleaseGate::Synced, |facts| facts.head = commit("c")),
        (ReleaseGate::Newer, |facts| facts.declared = version("v0.3.0")),
        (ReleaseGate::Changes, |facts| facts.commits = 0),
    ];
    for (gate, spoil) in wrong {
        let mut facts = fresh();
        spoil(&mut facts);
        assert!(refused(&facts).contains(&format!("--override {gate} ")), "{gate}");
        let other = if gate == ReleaseGate::Clean { ReleaseGate::Newer } else { ReleaseGate::Clean };
        assert!(plan(&overriding(facts.clone(), other)).is_err(), "{gate}");
        let facts = overriding(facts, gate);
        assert_eq!(plan(&facts).unwrap().passed, facts.overrides, "{gate}");
    }
    let moved = overriding(Facts { remote_tag: Some(commit("d")), ..fresh() }, ReleaseGate::Newer);
    assert!(!refused(&moved).contains("--override"));
}

#[test]
fn a_version_is_never_moved() {
    let own = Facts { local_tag: Some(commit("d")), ..prepared(vec![candidate("b", State::Green)]) };
    assert!(refused(&own).contains("your own tag v0.2.0 names dddddddddddd, not bbbbbbbbbbbb"));
    let foreign = Facts { remote_tag: Some(commit("d")), ..fresh() };
    assert!(refused(&foreign).contains("stands on dddddddddddd, which was not prepared to be v0.2.0"));
    assert!(refused(&foreign).contains("git push --delete origin v0.2.0"));
    let shipped = Facts { published: Ok(Some(Digest::of(b"image"))), ..foreign };
    assert!(!refused(&shipped).contains("--delete"));
    let named = |facts: Facts| Facts { published: Ok(Some(Digest::of(b"other"))), ..facts };
    for facts in [tagged(), prepared(vec![candidate("b", State::Green)]), fresh()] {
        assert!(refused(&named(facts)).contains("another image under v0.2.0"));
    }
    // The image of the commit was cleaned away: nobody can say that it was another one.
    let mut gone = tagged();
    gone.candidates[0].image = Ok(None);
    assert!(plan(&named(gone)).is_ok());
}

#[test]
fn the_plan_reads_as_the_runbook() {
    assert_eq!(
        plan(&fresh()).unwrap().to_string(),
        "release v0.2.0 from master: 3 commits since v0.1.0; notes from CHANGELOG.md
  1  to do    push the commit `release: v0.2.0` to master
  2  to do    CI tests that commit and pushes its image as sha-…
  3  to do    push the annotated tag v0.2.0 on that commit
  4  to do    CI gives sha-… the name v0.2.0 and publishes the release"
    );
    let drafted = Facts { notes: Ok(Some("### Fixed\n\n- fix it".into())), commits: 1, ..fresh() };
    let text = plan(&drafted).unwrap().to_string();
    assert!(text.starts_with("release v0.2.0 from master: 1 commit since v0.1.0; notes drafted\n"), "{text}");
    assert!(
        text.ends_with("says nothing:\n           ### Fixed\n           \n           - fix it"),
        "{text}"
    );
    let passed = overriding(prepared(vec![candidate("b", State::Missing)]), ReleaseGate::Clean);
    assert_eq!(
        plan(&passed).unwrap().to_string(),
        format!(
            "release v0.2.0 from master
  1  done     push the commit `release: v0.2.0` to master
  2  waits    CI tests bbbbbbbbbbbb and pushes its image as sha-bbbbbbbbbbbb
              check test is not, {OWN}/test
  3  to do    push the annotated tag v0.2.0 on bbbbbbbbbbbb
  4  to do    CI gives sha-bbbbbbbbbbbb the name v0.2.0 and publishes the release"
        )
    );
}
