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
fn what_changed_a_file_is_found_on_the_line_of_first_parents() {
    let (_dir, work, line) = history();
    let changes = |from: Option<&String>, paths: &[&str]| {
        work.changes(from.map(String::as_str), &line[4], paths).unwrap()
    };
    let newest_first = |range: &[String]| range.iter().rev().cloned().collect::<Vec<_>>();
    // The merge brought its change; what was committed aside is not on the line.
    assert_eq!(changes(None, &["v.toml"]), newest_first(&line[1..]));
    assert_eq!(changes(Some(&line[2]), &["v.toml"]), newest_first(&line[3..]));
    assert_eq!(changes(None, &["a.txt", "v.toml"]), newest_first(&line));
    assert_eq!(changes(Some(&line[0]), &["a.txt"]), Vec::<String>::new());
}

#[test]
fn messages_are_found_by_how_they_begin_aside_too() {
    let (_dir, work, line) = history();
    let found = |from: Option<&str>, start: &str| work.messages_that_begin(from, &line[4], start).unwrap();
    assert_eq!(found(None, "set 2"), ["set 2 again", "set 2 (aside)"]);
    assert_eq!(found(Some(&line[2]), "set 2"), ["set 2 again"]);
    assert_eq!(found(None, "2"), Vec::<String>::new());
    assert_eq!(found(None, "set ."), Vec::<String>::new());
}

#[test]
fn what_the_user_has_set_changes_no_answer() {
    let (_dir, work, line) = history();
    for (name, value) in [("log.diffMerges", "off"), ("color.ui", "always")] {
        work.run(["config", name, value]).unwrap();
    }
    assert_eq!(work.changes(Some(&line[1]), &line[2], &["v.toml"]).unwrap(), [line[2].clone()]);
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
    assert_eq!(shallow.changes(Some(&line[3]), "HEAD", &["v.toml"]).unwrap(), line[4..]);

    let refused = |git: &Git, with: &str| {
        let error = git.is_ancestor(&line[1], "HEAD").unwrap_err();
        assert_eq!(exit_code(&error), 2);
        assert!(error.to_string().contains("this shallow clone cannot tell whether"), "{error}");
        let asked = [
            git.count(Some(&line[1]), "HEAD").map(drop),
            git.subjects(Some(&line[1]), "HEAD").map(drop),
            git.first_parent_after(&line[1], "HEAD", 9).map(drop),
            git.changes(Some(&line[1]), "HEAD", &["v.toml"]).map(drop),
            git.messages_that_begin(Some(&line[1]), "HEAD", "set").map(drop),
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
