//! Ranges and lines of first parents, with merges and in clones that lack something.

use super::*;

/// A history, oldest first: `first` to `main`, whose third commit on the line of first parents is a merge that brings
/// `version = "2"`.
fn history() -> (tempfile::TempDir, Git, Vec<String>) {
    let (dir, work) = repositories();
    let mut line = vec![work.commit("HEAD").unwrap().unwrap()];
    let commit = |parent: &str, text: &str, message: &str| {
        work.commit_files(parent, &[("v.toml", text)], message).unwrap()
    };
    line.push(commit(&line[0], "version = \"1\"\n", "set 1"));
    let side = commit(&line[1], "version = \"2\"\n", "set 2 (aside)");
    let tree = format!("{side}^{{tree}}");
    let merge = ["commit-tree", "-p", &line[1], "-p", &side, "-m", "merge", &tree];
    line.push(work.run(merge).unwrap());
    line.push(commit(&line[2], "version = \"1.5\"\n[a+(b]\n", "take 2 back"));
    line.push(commit(&line[3], "# version = \"9\"\nversion = \"2\"\n", "set 2 again"));
    work.fast_forward(&line[4]).unwrap();
    work.run(["push", "--quiet", "origin", "main"]).unwrap();
    (dir, work, line)
}

#[test]
fn the_oldest_commit_that_added_a_line_is_found_on_the_line_of_first_parents() {
    let (_dir, work, line) = history();
    let added = |from: Option<usize>, starts: &[&str]| {
        let from = from.map(|index| line[index].as_str());
        let found = work.commit_that_added(from, &line[4], "v.toml", starts).unwrap();
        found.map(|id| line.iter().position(|commit| *commit == id).unwrap())
    };
    assert_eq!(added(None, &["version = \"1\""]), Some(1));
    // The merge brought it; the commit that took it away is none that added it.
    assert_eq!(added(None, &["version = \"2\""]), Some(2));
    assert_eq!(added(Some(2), &["version = \"2\""]), Some(4));
    assert_eq!(added(Some(0), &["version = \"2\"", "version = \"1\""]), Some(1));
    // Where a line starts, and as it is written: no pattern.
    assert_eq!(added(None, &["version = \"9\""]), None);
    assert_eq!(added(None, &["version = \"1.5"]), Some(3));
    assert_eq!(added(None, &["version = \"...\""]), None);
    assert_eq!(added(None, &["[a+(b"]), Some(3));
    assert_eq!(added(None, &["ersion"]), None);
    assert_eq!(added(Some(4), &["version"]), None);
    let other = work.commit_that_added(None, &line[4], "a.txt", &["version"]).unwrap();
    assert_eq!(other, None);
}

#[test]
fn what_the_user_has_set_changes_no_answer() {
    let (dir, work, line) = history();
    for (name, value) in [
        ("log.diffMerges", "off"),
        ("color.ui", "always"),
        ("diff.noprefix", "true"),
        ("diff.external", "false"),
        ("diff.other.textconv", "sed s/version/other/"),
    ] {
        work.run(["config", name, value]).unwrap();
    }
    for attribute in ["-diff", "diff=other"] {
        let attributes = dir.path().join("work/.git/info/attributes");
        std::fs::write(attributes, format!("v.toml {attribute}\n")).unwrap();
        let found = work.commit_that_added(None, &line[4], "v.toml", &["version = \"2\""]).unwrap();
        assert_eq!(found.as_ref(), Some(&line[2]), "{attribute}");
    }
    assert_eq!(work.subjects(Some(&line[1]), &line[2]).unwrap(), ["set 2 (aside)"]);
}

#[test]
fn a_range_is_counted_and_its_line_of_first_parents_listed() {
    let (_dir, work, line) = history();
    assert_eq!(work.count(None, "HEAD").unwrap(), 5);
    assert_eq!(work.count(Some(&line[1]), "HEAD").unwrap(), 3);
    assert_eq!(work.count(Some("HEAD"), "HEAD").unwrap(), 0);
    assert_eq!(work.first_parent_after(&line[0], "HEAD", 10).unwrap(), line[1..]);
    assert_eq!(work.first_parent_after(&line[1], "HEAD", 2).unwrap(), line[2..4]);
    assert_eq!(work.first_parent_after(&line[4], "HEAD", 2).unwrap(), Vec::<String>::new());
    assert_eq!(work.first_parent_after(&line[4], &line[1], 2).unwrap(), Vec::<String>::new());

    let side = work.commit(&format!("{}^2", line[2])).unwrap().unwrap();
    let error = work.first_parent_after(&side, "HEAD", 10).unwrap_err();
    assert_eq!(exit_code(&error), 3);
    assert!(error.to_string().contains("on no line of first parents"), "{error}");
}

#[test]
fn a_shallow_clone_answers_for_what_it_has_and_refuses_the_rest() {
    let (dir, work, line) = history();
    work.tag("v1", &line[1], "1").unwrap();
    work.run(["push", "--quiet", "origin", "v1"]).unwrap();
    let origin = format!("file://{}", dir.path().join("remote.git").display());
    work.run(["clone", "--quiet", "--depth=2", "--no-tags", &origin, "../shallow"]).unwrap();
    let shallow = Git::at(dir.path().join("shallow"));

    // From the start of what there is: nothing was released yet, and nobody can say more.
    assert_eq!(shallow.count(None, "HEAD").unwrap(), 2);
    assert!(shallow.is_ancestor(&line[3], "HEAD").unwrap());
    assert_eq!(shallow.first_parent_after(&line[3], "HEAD", 9).unwrap(), line[4..]);
    let starts: [&str; 1] = ["version"];
    let found = shallow.commit_that_added(Some(&line[3]), "HEAD", "v.toml", &starts).unwrap();
    assert_eq!(found.as_ref(), Some(&line[4]));

    let refused = |git: &Git, with: &str| {
        let error = git.is_ancestor(&line[1], "HEAD").unwrap_err();
        assert_eq!(exit_code(&error), 2);
        assert!(error.to_string().contains("this shallow clone cannot tell whether"), "{error}");
        let asked = [
            git.count(Some(&line[1]), "HEAD").map(drop),
            git.subjects(Some(&line[1]), "HEAD").map(drop),
            git.first_parent_after(&line[1], "HEAD", 9).map(drop),
            git.commit_that_added(Some(&line[1]), "HEAD", "v.toml", &starts).map(drop),
        ];
        for answer in asked {
            let error = answer.unwrap_err();
            assert_eq!(exit_code(&error), 2);
            assert!(error.to_string().contains(with), "{error}");
        }
    };
    refused(&shallow, "does not have the commit");
    // The tag's commit came, but not what lies between.
    shallow.run(["fetch", "--quiet", "--depth=1", "origin", "tag", "v1"]).unwrap();
    refused(&shallow, "does not have all commits after");
    refused(&shallow, "help: git fetch --unshallow --tags origin");
    shallow.run(["fetch", "--quiet", "--unshallow", "--tags", "origin"]).unwrap();
    assert_eq!(shallow.count(Some(&line[1]), "HEAD").unwrap(), 3);
    assert!(shallow.is_ancestor(&line[1], "HEAD").unwrap());
    let unknown = "0123456789012345678901234567890123456789";
    assert!(!shallow.is_ancestor(unknown, "HEAD").unwrap());
    let error = shallow.count(Some(unknown), "HEAD").unwrap_err().to_string();
    assert!(error.ends_with("help: git fetch --tags origin"), "{error}");
}
