//! What pods need of ConfigMaps and Secrets, as rendered objects tell it. Values in, values out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::deploy::render::stem;

/// In place of keys that are not named: the whole of it is taken. No key can be called so.
const WHOLE: &str = "*";
/// Of a Secret that images are pulled with.
const PULL: &str = ".dockerconfigjson";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    ConfigMap,
    Secret,
}

/// A ConfigMap or a Secret; the name without the hash that kustomize gives to what it generates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Source {
    pub kind: Kind,
    /// Empty where the objects have none.
    pub namespace: String,
    pub name: String,
}

/// What pods take of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub keys: BTreeSet<String>,
    /// Whether it is rendered with the rest; else somebody has to make it.
    pub rendered: bool,
    /// Whether it becomes environment variables.
    env: bool,
    /// Whether every pod starts without it.
    pub optional: bool,
}

pub type Needs = BTreeMap<Source, Need>;

/// What becomes of one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    #[serde(flatten)]
    pub source: Source,
    pub is: Fate,
    /// `*` where they are not named.
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub optional: bool,
    /// The command that makes a Secret which is not rendered with the rest.
    pub make: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    New,
    Changed,
    /// No pod needs it any more.
    Gone,
}

/// What the pods of these objects need: `envFrom`, `valueFrom`, volumes and `imagePullSecrets`.
pub fn requirements(objects: &[Value]) -> Needs {
    let mut found = Found { objects, needs: Needs::new() };
    objects.iter().for_each(|object| found.walk(object, ""));
    found.needs
}

/// What is needed after, and was not before; and the other way round.
pub fn changes(before: &Needs, after: &Needs) -> Vec<Change> {
    let sources: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let none = BTreeSet::new();
    let changes = sources.into_iter().filter_map(|source| {
        let (old, new) = (before.get(source), after.get(source));
        let keys = |need: Option<&Need>| need.map_or_else(|| none.clone(), |need| need.keys.clone());
        let (had, has) = (keys(old), keys(new));
        let is = match (old, new) {
            (None, _) => Fate::New,
            (_, None) => Fate::Gone,
            _ if had == has => return None,
            _ => Fate::Changed,
        };
        let added: Vec<_> = has.difference(&had).cloned().collect();
        let to_make = |need: &&Need| source.kind == Kind::Secret && !need.rendered && !added.is_empty();
        Some(Change {
            source: source.clone(),
            is,
            make: new.filter(to_make).map(|need| command(source, need, is)),
            optional: new.or(old).is_some_and(|need| need.optional),
            removed: had.difference(&has).cloned().collect(),
            added,
        })
    });
    changes.collect()
}

/// Values come from files, since arguments are read by every process of the machine.
fn command(source: &Source, need: &Need, is: Fate) -> String {
    let Source { namespace, name, .. } = source;
    let namespace = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
    let key = |key: &String| match (key.as_str(), need.env) {
        (WHOLE, true) => "--from-env-file=FILE".to_owned(),
        (WHOLE, false) => "--from-file=FOLDER".to_owned(),
        (PULL, _) => format!("--type=kubernetes.io/dockerconfigjson --from-file={PULL}=FILE"),
        (key, _) => format!("--from-file={key}=FILE"),
    };
    let keys = need.keys.iter().map(key).collect::<Vec<_>>().join(" ");
    let create = format!("kubectl{namespace} create secret generic {name} {keys}");
    match is {
        // It is there already, and `create` would refuse.
        Fate::Changed => format!("{create} --dry-run=client -o yaml | kubectl{namespace} apply -f -"),
        Fate::New | Fate::Gone => create,
    }
}

struct Found<'a> {
    objects: &'a [Value],
    needs: Needs,
}

impl Found<'_> {
    /// Pods stand at any depth: in Deployments, CronJobs, and kinds of others.
    fn walk(&mut self, value: &Value, namespace: &str) {
        match value {
            Value::Object(fields) => {
                let own = value["metadata"]["namespace"].as_str().filter(|_| fields.contains_key("kind"));
                let namespace = own.unwrap_or(namespace);
                if value["containers"].is_array() {
                    self.pod(value, namespace);
                }
                fields.values().for_each(|value| self.walk(value, namespace));
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(item, namespace)),
            _ => {}
        }
    }

    fn pod(&mut self, pod: &Value, namespace: &str) {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        for container in lists.iter().flat_map(|list| each(&pod[*list])) {
            for from in each(&container["envFrom"]) {
                self.take(namespace, Kind::ConfigMap, &from["configMapRef"], "name", &[WHOLE], true);
                self.take(namespace, Kind::Secret, &from["secretRef"], "name", &[WHOLE], true);
            }
            for from in each(&container["env"]).map(|variable| &variable["valueFrom"]) {
                for (kind, reference) in
                    [(Kind::ConfigMap, &from["configMapKeyRef"]), (Kind::Secret, &from["secretKeyRef"])]
                {
                    let key = reference["key"].as_str().unwrap_or(WHOLE);
                    self.take(namespace, kind, reference, "name", &[key], true);
                }
            }
        }
        for volume in each(&pod["volumes"]) {
            self.volume(namespace, volume, "secretName");
            // In a projected one Secrets are called by `name`.
            each(&volume["projected"]["sources"]).for_each(|source| self.volume(namespace, source, "name"));
        }
        for secret in each(&pod["imagePullSecrets"]) {
            self.take(namespace, Kind::Secret, secret, "name", &[PULL], false);
        }
    }

    fn volume(&mut self, namespace: &str, volume: &Value, secret: &str) {
        for (kind, source, name) in
            [(Kind::ConfigMap, &volume["configMap"], "name"), (Kind::Secret, &volume["secret"], secret)]
        {
            let items: Vec<_> = each(&source["items"]).filter_map(|item| item["key"].as_str()).collect();
            let keys = if items.is_empty() { &[WHOLE][..] } else { &items };
            self.take(namespace, kind, source, name, keys, false);
        }
    }

    fn take(&mut self, namespace: &str, kind: Kind, from: &Value, name: &str, keys: &[&str], env: bool) {
        let Some(name) = from[name].as_str() else { return };
        let rendered = self.objects.iter().find(|object| {
            let of = object["metadata"]["namespace"].as_str().unwrap_or_default();
            object["kind"] == format!("{kind:?}") && object["metadata"]["name"] == name && of == namespace
        });
        let mut keys: BTreeSet<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        if let Some(object) = rendered.filter(|_| keys.contains(WHOLE)) {
            let data =
                ["data", "binaryData", "stringData"].iter().filter_map(|part| object[*part].as_object());
            keys = data.flat_map(|values| values.keys().cloned()).collect();
        }
        let named = if rendered.is_some() { stem(name) } else { name };
        let source = Source { kind, namespace: namespace.to_owned(), name: named.to_owned() };
        let need = self.needs.entry(source).or_insert_with(|| Need {
            keys: BTreeSet::new(),
            rendered: rendered.is_some(),
            env,
            optional: true,
        });
        need.keys.extend(keys);
        need.env |= env;
        need.optional &= from["optional"] == true;
    }
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(pod: &Value) -> Value {
        json!({ "kind": "Deployment", "metadata": { "name": "dojo", "namespace": "prod" },
            "spec": { "template": { "spec": pod } } })
    }

    fn lines(changes: &[Change]) -> Vec<String> {
        let line = |change: &Change| {
            let Change { source: Source { kind, name, .. }, is, added, removed, .. } = change;
            format!("{is:?} {kind:?} {name} +{} -{}", added.join(","), removed.join(","))
        };
        changes.iter().map(line).collect()
    }

    #[test]
    fn all_ways_into_a_pod_are_found() {
        let pod = json!({
            "initContainers": [{ "envFrom": [{ "secretRef": { "name": "whole" } }] }],
            "containers": [{ "env": [
                { "name": "A", "value": "plain" },
                { "name": "B", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "b" } } },
                { "name": "C", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "c", "optional": true } } },
            ] }],
            "volumes": [
                { "secret": { "secretName": "keys", "items": [{ "key": "file", "path": "x" }] } },
                { "secret": { "secretName": "folder" } },
                { "projected": { "sources": [{ "secret": { "name": "keys", "items": [{ "key": "p" }] } }] } },
            ],
            "imagePullSecrets": [{ "name": "ghcr" }],
        });
        let changes = changes(&Needs::new(), &requirements(&[deployment(&pod)]));
        assert_eq!(
            lines(&changes),
            [
                "New ConfigMap map +c -",
                "New Secret folder +* -",
                "New Secret ghcr +.dockerconfigjson -",
                "New Secret keys +b,file,p -",
                "New Secret whole +* -",
            ]
        );
        assert_eq!(changes[0].make, None);
        assert!(changes[0].optional && !changes[1].optional);
        let make = |index: usize| changes[index].make.clone().unwrap();
        assert_eq!(make(1), "kubectl -n prod create secret generic folder --from-file=FOLDER");
        assert_eq!(
            make(3),
            "kubectl -n prod create secret generic keys --from-file=b=FILE --from-file=file=FILE --from-file=p=FILE"
        );
        assert!(
            make(2).ends_with("--type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson=FILE")
        );
        assert!(make(4).ends_with("--from-env-file=FILE"));
    }

    #[test]
    fn what_is_rendered_tells_its_keys_whatever_its_hash() {
        let with = |hash: &str, data: &Value| {
            let name = format!("dojo-{hash}");
            let map = json!({ "kind": "ConfigMap", "metadata": { "name": name, "namespace": "prod" }, "data": data });
            let pod = json!({ "containers": [{ "envFrom": [{ "configMapRef": { "name": name } }] }] });
            requirements(&[map, deployment(&pod)])
        };
        let old = with("2456789bcd", &json!({ "A": "1", "B": "2" }));
        assert_eq!(
            lines(&changes(&old, &with("fghkmt2456", &json!({ "A": "1", "C": "2" })))),
            ["Changed ConfigMap dojo +C -B"]
        );
        assert_eq!(changes(&old, &with("fghkmt2456", &json!({ "A": "9", "B": "9" }))), []);
    }

    #[test]
    fn a_further_key_of_a_secret_that_is_there_is_applied_with_the_others() {
        let with = |keys: &[&str]| {
            let items: Vec<_> = keys.iter().map(|key| json!({ "key": key })).collect();
            let volume = json!({ "secret": { "secretName": "dojo", "items": items } });
            requirements(&[deployment(&json!({ "containers": [], "volumes": [volume] }))])
        };
        let changed = changes(&with(&["tokens"]), &with(&["tokens", "pepper"]));
        assert_eq!(lines(&changed), ["Changed Secret dojo +pepper -"]);
        assert_eq!(
            changed[0].make.as_deref().unwrap(),
            "kubectl -n prod create secret generic dojo --from-file=pepper=FILE --from-file=tokens=FILE --dry-run=client -o yaml | kubectl -n prod apply -f -"
        );
        let fewer = changes(&with(&["tokens", "pepper"]), &with(&["tokens"]));
        assert_eq!(
            (lines(&fewer), &fewer[0].make),
            (vec!["Changed Secret dojo + -pepper".to_owned()], &None)
        );
        assert_eq!(lines(&changes(&with(&["a"]), &Needs::new())), ["Gone Secret dojo + -a"]);
    }
}
