//! `cluster:` of an environment in `deploy/pipeline.yaml`: where its pod and its GitOps controller can be looked at.

use serde::Deserialize;

/// A namespace of one cluster. Both are told, since a person's current context may be another cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Place {
    /// A context of the kubeconfig.
    pub context: String,
    pub namespace: String,
    pub controller: Option<Controller>,
}

/// The object of the GitOps controller that applies the environment's kustomization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controller {
    /// An `Application`.
    Argocd(Object),
    /// A `Kustomization` of `kustomize.toolkit.fluxcd.io`.
    Flux(Object),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub namespace: String,
    pub name: String,
}

impl Controller {
    pub const fn object(&self) -> &Object {
        let (Self::Argocd(object) | Self::Flux(object)) = self;
        object
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    context: String,
    namespace: String,
    argocd: Option<String>,
    flux: Option<String>,
}

impl TryFrom<Keys> for Place {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let Keys { context, namespace, argocd, flux } = keys;
        if context.trim().is_empty() || context.starts_with('-') || context.chars().any(char::is_control) {
            return Err(format!(
                "cluster: {context:?} is no context: `kubectl config get-contexts` lists them"
            ));
        }
        if !is_name(&namespace) {
            return Err(format!("cluster: {namespace:?} is no namespace"));
        }
        let controller = match (argocd, flux) {
            (Some(_), Some(_)) => return Err("cluster: it is either argocd or flux".to_owned()),
            (Some(text), None) => Some(Controller::Argocd(object("argocd", &text)?)),
            (None, Some(text)) => Some(Controller::Flux(object("flux", &text)?)),
            (None, None) => None,
        };
        Ok(Self { context, namespace, controller })
    }
}

fn object(key: &str, text: &str) -> Result<Object, String> {
    let parts = text.split_once('/').filter(|(namespace, name)| is_name(namespace) && is_name(name));
    let (namespace, name) = parts.ok_or_else(|| format!("cluster: {key}: {text:?} is not NAMESPACE/NAME"))?;
    Ok(Object { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// A name as Kubernetes gives them (RFC 1123); it stands in command lines.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    !text.is_empty()
        && text.chars().all(inner)
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_the_documented_forms() {
        let plain = place("{context: arn:aws:eks:eu:1:cluster/prod, namespace: dojo-prod}").unwrap();
        assert_eq!((plain.context.as_str(), plain.controller), ("arn:aws:eks:eu:1:cluster/prod", None));
        let object = Object { namespace: "argocd".into(), name: "dojo-production".into() };
        let argocd = place("{context: prod, namespace: x, argocd: argocd/dojo-production}").unwrap();
        assert_eq!(argocd.controller, Some(Controller::Argocd(object)));
        let flux =
            place("{context: prod, namespace: x, flux: flux-system/dojo}").unwrap().controller.unwrap();
        assert_eq!((flux.object().namespace.as_str(), flux.object().name.as_str()), ("flux-system", "dojo"));
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, said) in [
            ("{namespace: x}", "context"),
            ("{context: prod}", "namespace"),
            ("{context: '', namespace: x}", "is no context"),
            ("{context: --all, namespace: x}", "is no context"),
            ("{context: prod, namespace: --all}", "is no namespace"),
            ("{context: prod, namespace: Dojo}", "is no namespace"),
            ("{context: prod, namespace: x, argo: a/b}", "argo"),
            ("{context: prod, namespace: x, argocd: a/b, flux: a/b}", "either argocd or flux"),
            ("{context: prod, namespace: x, argocd: dojo}", "argocd: \"dojo\" is not NAMESPACE/NAME"),
            ("{context: prod, namespace: x, flux: a/b/c}", "flux: \"a/b/c\" is not NAMESPACE/NAME"),
        ] {
            let error = place(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn two_environments_are_not_in_one_namespace() {
        let text = include_str!("../../../deploy/pipeline.yaml");
        let told = |second: &str| {
            let first = text.replacen("url: \"https", "cluster: {context: c, namespace: n}, url: \"https", 1);
            let second = format!("cluster: {{context: c, namespace: {second}}}, after: staging, url:");
            super::super::Pipeline::parse(&first.replacen("after: staging, url:", &second, 1))
        };
        assert!(told("n").unwrap_err().to_string().contains("production has the cluster and namespace"));
        assert_eq!(told("m").unwrap().environments[1].cluster.as_ref().unwrap().namespace, "m");
    }
}
