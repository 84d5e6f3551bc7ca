//! What kustomize takes without a word and means otherwise than it looks, or fails on: each is named with its line here.
//! A kustomize that comes to refuse one by itself is welcome.

use super::rendered::Stage;
use super::tests::{IMAGE, PATH, SOURCE, digest, target};
use super::*;

struct Trap {
    name: &'static str,
    text: &'static str,
    /// What kustomize deploys in silence (`IMAGE` and this); `None` if it fails.
    silently: Option<&'static str>,
    /// The line and words of the refusal.
    refused: (usize, &'static str),
    /// Whether a change puts it right, where reading refuses it.
    mended: bool,
}

const fn trap(
    name: &'static str,
    text: &'static str,
    silently: Option<&'static str>,
    refused: (usize, &'static str),
) -> Trap {
    Trap { name, text, silently, refused, mended: false }
}

const fn mended(
    name: &'static str,
    text: &'static str,
    silently: Option<&'static str>,
    refused: (usize, &'static str),
) -> Trap {
    Trap { mended: true, ..trap(name, text, silently, refused) }
}

const TRAPS: [Trap; 24] = [
    trap(
        "a misspelt image name",
        "images:\n- name: ghcr.io/blogle/dogo\n  newTag: v1\n",
        Some(":edge"),
        (1, "the names there are: ghcr.io/blogle/dogo"),
    ),
    trap(
        "a missing entry",
        "images: [{name: busybox, newTag: v1}]\n",
        Some(":edge"),
        (1, "no entry of images is named"),
    ),
    trap(
        "no images at all",
        "resources: [pod.yaml]\nnamespace: prod\n",
        Some(":edge"),
        (1, "it has no images"),
    ),
    trap(
        "images twice",
        "images: [{name: ghcr.io/blogle/dojo, newTag: v1}]\nimages: [{name: ghcr.io/blogle/dojo, newTag: v2}]\n",
        Some(":v2"),
        (2, "images stands twice"),
    ),
    trap(
        "newTag twice",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: v1\n  newTag: v2\n",
        Some(":v2"),
        (4, "newTag stands twice"),
    ),
    trap(
        "the entry twice",
        "images:\n- {name: ghcr.io/blogle/dojo, newTag: v1}\n- {name: ghcr.io/blogle/dojo, newTag: v2}\n",
        Some(":v2"),
        (3, "stands twice, first in line 2"),
    ),
    trap(
        "a name as a pattern",
        "images:\n- {name: ghcr.io/blogle/dojo, newTag: v1}\n- {name: 'ghcr.io/blogle/dojo.*', newTag: v2}\n",
        Some(":v2"),
        (3, "takes names as patterns"),
    ),
    trap(
        "a second document",
        "images: [{name: ghcr.io/blogle/dojo, newTag: v1}]\n---\nimages: [{name: ghcr.io/blogle/dojo, newTag: v2}]\n",
        Some(":v1"),
        (2, "a second YAML document"),
    ),
    trap(
        "IMAGES",
        "IMAGES: [{name: ghcr.io/blogle/dojo, newTag: v1}]\n",
        Some(":v1"),
        (1, "kustomize reads IMAGES as images"),
    ),
    trap(
        "newtag",
        "images:\n- name: ghcr.io/blogle/dojo\n  newtag: v1\n",
        Some(":v1"),
        (3, "kustomize reads newtag as newTag"),
    ),
    trap(
        "newTag and newtag",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: v1\n  newtag: v2\n",
        Some(":v2"),
        (4, "kustomize reads newtag as newTag"),
    ),
    trap(
        "a suffix, which is put on twice",
        "images:\n- name: ghcr.io/blogle/dojo\n  tagSuffix: -x\n",
        Some(":edge-x-x"),
        (3, "tagSuffix changes the tag"),
    ),
    trap(
        "an alias as the tag",
        "namePrefix: &v v1\nimages:\n- name: ghcr.io/blogle/dojo\n  newTag: *v\n",
        Some(":v1"),
        (4, "newTag is an alias"),
    ),
    trap(
        "an anchor that is shared",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: &v v1\nnamePrefix: *v\n",
        Some(":v1"),
        (3, "newTag has an anchor"),
    ),
    trap(
        "a merged entry",
        "commonLabels: &d {newTag: v1}\nimages:\n- <<: *d\n  name: ghcr.io/blogle/dojo\n",
        Some(":v1"),
        (3, "merge key"),
    ),
    trap(
        "a block scalar",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: |-\n    v1\n",
        Some(":v1"),
        (3, "newTag is a block scalar"),
    ),
    trap(
        "a line break of YAML 1.1",
        "images:\n- name: ghcr.io/blogle/dojo # mind\u{2028}  newTag: v1\n",
        Some(":v1"),
        (2, "U+2028"),
    ),
    mended(
        "1.10 as a number",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: 1.10\n",
        None,
        (3, "quote it: newTag: \"1.10\""),
    ),
    mended(
        "0123456 as a number",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: 0123456\n",
        None,
        (3, "quote it: newTag: \"0123456\""),
    ),
    mended(
        "12e5 as a number",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: 12e5\n",
        None,
        (3, "quote it: newTag: \"12e5\""),
    ),
    mended(
        "on as a truth value",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: on\n",
        None,
        (3, "quote it: newTag: \"on\""),
    ),
    mended(
        "a digest in the tag",
        "images:\n- name: ghcr.io/blogle/dojo\n  newTag: v1@sha256:abc\n",
        Some(":v1@sha256:abc"),
        (3, "newTag is no image tag"),
    ),
    mended(
        "a question mark in brackets",
        "resources: [github.com/blogle/dojo//x?ref=v0.1.0]\nimages: [{name: ghcr.io/blogle/dojo, newTag: v1}]\n",
        None,
        (1, "put the address in quotes"),
    ),
    mended(
        "manifests of two versions",
        "resources:\n- github.com/blogle/dojo//x?ref=v0.1.0\n- github.com/blogle/dojo//y?ref=v0.2.0\nimages:\n- {name: ghcr.io/blogle/dojo, newTag: v1}\n",
        Some(":v1"),
        (3, "ref v0.2.0 here, but ref v0.1.0 in line 2"),
    ),
];

#[test]
fn each_trap_is_named_and_changes_nothing() {
    for trap in TRAPS {
        let source = trap.text.contains(SOURCE).then_some(SOURCE);
        let (line, words) = trap.refused;
        let refused = |fault: Fault| {
            let said = fault.to_string();
            let named = said.starts_with(&format!("{PATH}:{line}: ")) && said.contains(words);
            assert!(named, "{}: {said}", trap.name);
        };
        refused(read(trap.text, &target(source)).expect_err(trap.name));
        let git_ref = source.map(|_| "v0.2.0".to_owned());
        let pin = Pin { git_ref, tag: Some("v0.2.0".to_owned()), digest: Some(digest('b')) };
        match write(trap.text, &target(source), &pin) {
            Ok(after) if trap.mended => assert_eq!(read(&after, &target(source)), Ok(pin), "{}", trap.name),
            Ok(after) => panic!("{}: {after}", trap.name),
            Err(fault) => refused(fault),
        }
    }
}

#[test]
fn kustomize_does_walk_into_the_traps() {
    let Some(stage) = Stage::set() else { return };
    let walks = |trap: &&Trap| {
        let rendered = stage.render(trap.text, IMAGE);
        if let Ok(rendered) = &rendered {
            let silently = trap.silently.map(|rest| format!("{IMAGE}{rest}"));
            assert_eq!(rendered.images, silently.as_slice(), "{}", trap.name);
        }
        rendered.is_ok()
    };
    let walked = TRAPS.iter().filter(walks).count();
    assert!(walked > 10, "kustomize took only {walked} of {}", TRAPS.len());
}
