//! Tokens against a small cluster: good ones, and each way to be no good.

use client::fake::Fake;
use model::{GroupResource, ObjectKey};
use serde_json::json;

use super::*;
use crate::authenticate::{Authenticators, Credentials};
use crate::pki::generate_signing_key;

const ISSUER: &str = "https://kubernetes.default.svc";
const HOUR: Duration = Duration::from_secs(3600);

struct Stage {
    fake: Fake,
    tokens: Arc<Tokens>,
    claim: Claim,
}

impl Stage {
    fn new() -> Self {
        let fake = Fake::new();
        let put = |kind: &str, name: &str| {
            let meta = json!({"name": name, "namespace": "shop"});
            let object = fake.put(json!({"apiVersion": "v1", "kind": kind, "metadata": meta}));
            Named {
                name: name.into(),
                uid: object.uid.to_string(),
            }
        };
        let claim = Claim {
            namespace: "shop".into(),
            account: put("ServiceAccount", "cart"),
            pod: Some(put("Pod", "cart-1")),
            node: Some(Named {
                name: "n1".into(),
                uid: String::new(),
            }),
            lifetime: HOUR,
            ..Claim::default()
        };
        let tokens = Arc::new(Tokens::new(ISSUER, &generate_signing_key().unwrap()).unwrap());
        Self { fake, tokens, claim }
    }

    fn sign(&self, change: impl FnOnce(&mut Claim)) -> String {
        let mut claim = self.claim.clone();
        change(&mut claim);
        self.tokens
            .sign(&claim, SystemTime::now(), "id-1".into())
            .unwrap()
            .token
    }

    /// Fresh authenticators each time: no memory between questions.
    async fn ask(&self, token: &str, audiences: &[&str]) -> Result<crate::Authenticated, String> {
        let accounts = ServiceAccounts {
            tokens: self.tokens.clone(),
            cluster: self.fake.cluster(),
        };
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        let authenticators = Authenticators::default().service_accounts(accounts);
        authenticators.token(token, &audiences).await.map_err(|e| e.to_string())
    }

    fn remove(&self, resource: &str, name: &str) {
        assert!(
            self.fake
                .remove(&ObjectKey::new(GroupResource::new("", resource), "shop", name))
        );
    }
}

#[tokio::test]
async fn a_token_says_whose_it_is() {
    let stage = Stage::new();
    let good = stage.ask(&stage.sign(|_| {}), &[]).await.unwrap();
    assert_eq!(good.user.name, "system:serviceaccount:shop:cart");
    assert_eq!(good.user.uid, stage.claim.account.uid);
    assert_eq!(
        good.user.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:shop",
            "system:authenticated"
        ]
    );
    assert_eq!(good.audiences, [ISSUER]);
    let said: Vec<(&str, &str)> = good
        .user
        .extra
        .iter()
        .map(|(k, v)| (k.as_str(), v[0].as_str()))
        .collect();
    assert_eq!(
        said,
        [
            ("authentication.kubernetes.io/credential-id", "JTI=id-1"),
            ("authentication.kubernetes.io/node-name", "n1"),
            ("authentication.kubernetes.io/pod-name", "cart-1"),
            (
                "authentication.kubernetes.io/pod-uid",
                stage.claim.pod.as_ref().unwrap().uid.as_str()
            ),
        ]
    );
}

#[tokio::test]
async fn a_token_is_good_for_its_audiences_only() {
    let stage = Stage::new();
    let vault = stage.sign(|claim| claim.audiences = vec!["vault".into(), "db".into()]);
    assert!(
        stage
            .ask(&vault, &[])
            .await
            .unwrap_err()
            .contains("invalid for the target audiences")
    );
    assert_eq!(
        stage.ask(&vault, &["other", "vault"]).await.unwrap().audiences,
        ["vault"]
    );
}

#[tokio::test]
async fn a_token_dies_with_its_time_its_signer_and_what_it_is_bound_to() {
    let stage = Stage::new();
    let token = stage.sign(|_| {});
    let early = SystemTime::now() - 2 * HOUR;
    let old = stage.tokens.sign(&stage.claim, early, "id-0".into()).unwrap().token;
    assert!(stage.ask(&old, &[]).await.unwrap_err().contains("ExpiredSignature"));
    let future = stage
        .tokens
        .sign(&stage.claim, SystemTime::now() + HOUR, "id-0".into())
        .unwrap()
        .token;
    assert!(stage.ask(&future, &[]).await.unwrap_err().contains("ImmatureSignature"));

    let forger = Tokens::new(ISSUER, &generate_signing_key().unwrap()).unwrap();
    let forged = forger
        .sign(&stage.claim, SystemTime::now(), "id-1".into())
        .unwrap()
        .token;
    assert!(
        stage
            .ask(&forged, &[])
            .await
            .unwrap_err()
            .contains("no key of this cluster")
    );
    let (head, rest) = token.split_once('.').unwrap();
    let (body, _) = rest.split_once('.').unwrap();
    let unsigned = format!("{}.{body}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    for bad in [
        unsigned.as_str(),
        &format!("{head}.{body}."),
        &token[..token.len() - 4],
        "x.y.z",
        "nonsense",
    ] {
        stage.ask(bad, &[]).await.unwrap_err();
    }

    stage.ask(&token, &[]).await.unwrap();
    stage.remove("pods", "cart-1");
    assert!(stage.ask(&token, &[]).await.unwrap_err().contains("not found"));
    stage
        .fake
        .put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart-1", "namespace": "shop"}}));
    assert!(
        stage.ask(&token, &[]).await.unwrap_err().contains("has been deleted"),
        "a later pod of the name is another"
    );
    let unbound = stage.sign(|claim| claim.pod = None);
    // Bound to nothing but the account, it does not mind; but a node alone must live.
    assert!(stage.ask(&unbound, &[]).await.unwrap_err().contains("nodes"));
    let unbound = stage.sign(|claim| (claim.pod, claim.node) = (None, None));
    stage.ask(&unbound, &[]).await.unwrap();
    stage.remove("serviceaccounts", "cart");
    assert!(stage.ask(&unbound, &[]).await.is_err());
}

#[tokio::test]
async fn the_certificate_comes_first_and_nobody_is_anonymous() {
    let authenticators = Authenticators::default().fixed_token(
        "secret",
        UserInfo {
            name: "ci".into(),
            ..UserInfo::default()
        },
    );
    let jane = Arc::new(UserInfo {
        name: "jane".into(),
        ..UserInfo::default()
    });
    let ask = async |certificate: Option<&Arc<UserInfo>>, bearer: Option<&str>| {
        authenticators
            .authenticate(Credentials { certificate, bearer })
            .await
            .map(|user| user.name.clone())
            .ok()
    };
    assert_eq!(ask(Some(&jane), Some("wrong")).await.as_deref(), Some("jane"));
    assert_eq!(ask(None, Some("secret")).await.as_deref(), Some("ci"));
    assert_eq!(ask(None, Some("wrong")).await, None);
    assert_eq!(ask(None, None).await.as_deref(), Some(users::ANONYMOUS));
    assert!(
        Authenticators::default()
            .without_anonymous()
            .authenticate(Credentials::default())
            .await
            .is_err()
    );
}
