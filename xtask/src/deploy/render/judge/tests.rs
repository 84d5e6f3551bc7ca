use serde_json::json;

use super::*;

const NAME: &str = "ghcr.io/blogle/dojo";
const NEW: &str = "ghcr.io/blogle/dojo:v0.2.0@sha256:22";
const OLD: &str = "ghcr.io/blogle/dojo:v0.1.0@sha256:11";

fn deployment(image: &str, beside: &str) -> Value {
    json!({ "kind": "Deployment", "metadata": { "name": "dojo", "namespace": "dojo-prod" }, "spec": { "template": { "spec": {
        "initContainers": [{ "name": "migrate", "image": image }],
        "containers": [{ "name": "dojo", "image": image }, { "name": "proxy", "image": beside }],
    } } } })
}

fn expected(same_ref: bool) -> Expected<'static> {
    Expected { environment: "production", name: NAME, image: NEW, same_ref, restore: None }
}

fn verdict(same_ref: bool, before: Vec<Value>, after: Vec<Value>) -> Result<Rendering, Fault> {
    judge(expected(same_ref), Some(Ok(before)), Ok(after))
}

#[test]
fn exactly_the_pinned_image_is_accepted() {
    let checked = verdict(true, vec![deployment(OLD, "envoy:1")], vec![deployment(NEW, "envoy:1")]).unwrap();
    assert_eq!(checked.containers, Some(2));
    assert!(checked.diff.starts_with("Deployment dojo-prod/dojo\n"), "{}", checked.diff);
    for line in [format!("-      - image: {OLD}"), format!("+      - image: {NEW}")] {
        let line = line.replace("      - ", "");
        let ends = line.trim_start_matches(['-', '+']).trim_start();
        assert!(
            checked.diff.lines().any(|l| l.starts_with(&line[..1]) && l.ends_with(ends)),
            "{}",
            checked.diff
        );
    }
    assert!(!checked.diff.contains("envoy:1\n-"), "{}", checked.diff);
    assert!(checked.image_alone);
    let more = verdict(false, vec![deployment(OLD, "envoy:1")], vec![deployment(NEW, "envoy:2")]).unwrap();
    assert!(!more.image_alone);
}

#[test]
fn anything_else_is_refused_by_name() {
    let refused = |same_ref, after: Vec<Value>| {
        let fault = verdict(same_ref, vec![deployment(OLD, "envoy:1")], after).unwrap_err();
        assert_eq!(fault.kind, Kind::Refused);
        fault.message().to_owned()
    };
    let tagged = refused(true, vec![deployment("ghcr.io/blogle/dojo:v0.2.0", "envoy:1")]);
    assert!(
        tagged.contains("would run ghcr.io/blogle/dojo:v0.2.0 (Deployment dojo-prod/dojo, containers dojo)"),
        "{tagged}"
    );
    // One of two containers only.
    let mut half = deployment(NEW, "envoy:1");
    half["spec"]["template"]["spec"]["initContainers"][0]["image"] = OLD.into();
    let half = refused(true, vec![half]);
    assert!(half.contains(&format!("{OLD} (Deployment dojo-prod/dojo, initContainers migrate)")), "{half}");
    let other = refused(true, vec![deployment("ghcr.io/blogle/dojo2:v0.2.0", "envoy:1")]);
    assert!(
        other.contains(
            "would not run ghcr.io/blogle/dojo: it renders to envoy:1, ghcr.io/blogle/dojo2:v0.2.0"
        ),
        "{other}"
    );
    // Two objects in a List, whose containers are called the same.
    let list = json!({ "kind": "List", "items": [deployment(OLD, "envoy:1"), deployment(NEW, "envoy:1")] });
    assert!(refused(true, vec![list]).contains(OLD));
    assert!(refused(true, Vec::new()).ends_with("renders to no image at all"));
    let beside = refused(true, vec![deployment(NEW, "envoy:2")]);
    assert!(
        beside.contains("envoy:1 (Deployment dojo-prod/dojo, containers proxy) -> envoy:2 (Deployment"),
        "{beside}"
    );
    // Other manifests may bring another image.
    verdict(false, vec![deployment(OLD, "envoy:1")], vec![deployment(NEW, "envoy:2")]).unwrap();
}

#[test]
fn what_does_not_render_counts_only_if_it_did_before() {
    let broken = || Err(Fault::refused("no such overlay"));
    let slow = || Err(Fault::remote("not within 60 s"));
    let after_only = judge(expected(true), Some(Ok(vec![deployment(OLD, "a")])), broken()).unwrap_err();
    assert_eq!(after_only.kind, Kind::Refused);
    assert!(after_only.message().contains("no such overlay"), "{after_only}");
    let hung = judge(expected(true), Some(Ok(vec![deployment(OLD, "a")])), slow()).unwrap_err();
    assert_eq!(hung.kind, Kind::Remote);
    for before in [None, Some(broken())] {
        let neither = judge(expected(true), before, broken()).unwrap();
        assert_eq!((neither.containers, neither.why.as_deref()), (None, Some("no such overlay")));
    }
    assert_eq!(
        judge(expected(true), Some(broken()), Ok(vec![deployment(NEW, "a")])).unwrap().containers,
        Some(2)
    );
}

#[test]
fn names_are_told_from_tags_and_ports() {
    for image in ["h:5000/o/n", "h:5000/o/n:v1", "h:5000/o/n@sha256:1", "h:5000/o/n:v1@sha256:1"] {
        assert_eq!(name_of(image), "h:5000/o/n");
    }
    assert_eq!(name_of("envoy:1"), "envoy");
}

#[test]
fn a_difference_keeps_secrets_and_is_cut_for_people() {
    let secret = |value: &str, hash: &str| json!({ "kind": "List", "items": [{ "kind": "Secret", "data": { "k": value }, "metadata": { "name": hash } }] });
    let shown = difference(&[secret("c2VjcmV0", "a")], &[secret("bmV3ZXI=", "b")]);
    assert!(!shown.contains("c2VjcmV0") && !shown.contains("bmV3ZXI="), "{shown}");
    assert!(shown.contains("-    name: a") && shown.contains("+    name: b"), "{shown}");
    let map = |name: &str, value: &str| json!({ "kind": "ConfigMap", "metadata": { "name": name }, "data": { "A": value } });
    let hashed = difference(&[map("dojo-2456789bcd", "1")], &[map("dojo-fghkmt2456", "2")]);
    assert_eq!(hashed.matches("ConfigMap dojo\n").count(), 1, "{hashed}");
    let long = (0..100).map(|n| format!("k{n}")).collect::<Vec<_>>();
    let object = |value: &str| {
        let data: serde_json::Map<_, _> = long.iter().map(|key| (key.clone(), value.into())).collect();
        json!({ "kind": "ConfigMap", "metadata": { "name": "m" }, "data": data })
    };
    let diff = difference(&[object("a")], &[object("b")]);
    let rendering = Rendering { image: NEW.into(), containers: Some(1), diff, ..Rendering::default() };
    assert_eq!(rendering.shown(false).lines().count(), SHORT + 1);
    assert!(rendering.shown(true).lines().count() > 200);
}

#[test]
fn the_pod_hears_of_the_restore_that_is_asked_for_and_of_no_other() {
    let config = |id: &str| json!({ "kind": "ConfigMap", "metadata": { "name": "dojo-x" }, "data": { "DOJO_RESTORE": id } });
    let verdict = |restore, id: &str| {
        let objects = vec![deployment(NEW, "envoy:1"), config(id)];
        judge(Expected { restore, ..expected(true) }, None, Ok(objects)).map(|rendering| rendering.containers)
    };
    assert_eq!(verdict(Some("a"), "a").unwrap(), Some(2));
    assert_eq!(verdict(None, "").unwrap(), Some(2));
    let refusal = verdict(Some("a"), "").unwrap_err().to_string();
    assert!(
        refusal.contains("production would be told no restore by its ConfigMap's DOJO_RESTORE, and not a"),
        "{refusal}"
    );
    assert!(verdict(None, "a").unwrap_err().to_string().contains("would be told a by"));
}
