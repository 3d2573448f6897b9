//! Service-account tokens: JSON Web Tokens signed here, bound to objects that must still live when they are shown.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::{Cluster, ReadVersion, Target};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use model::{Failure, Gvr, Object, UserInfo};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::authenticate::NotAuthenticated;
use crate::users;

/// How long an object that is being deleted still vouches for tokens bound to it (as kube-apiserver: time to shut down).
const FAREWELL: Duration = Duration::from_secs(60);

/// What a token is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    pub namespace: String,
    pub account: Named,
    /// Empty: the API server's own.
    pub audiences: Vec<String>,
    pub lifetime: Duration,
    pub pod: Option<Named>,
    pub secret: Option<Named>,
    pub node: Option<Named>,
}

/// An object by name, and by uid so that a later one of the same name does not inherit its tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The payload, as Kubernetes lays it out.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Payload {
    aud: Audiences,
    exp: u64,
    iat: u64,
    iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
    nbf: u64,
    sub: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
    serviceaccount: Named,
}

/// RFC 7519 allows one text or a list of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

/// A signed token, and what it ended up saying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub token: String,
    pub audiences: Vec<String>,
    pub expires: SystemTime,
}

/// Signs tokens, and knows the keys by which signed ones are recognised.
pub struct Tokens {
    issuer: String,
    audiences: Vec<String>,
    key_id: String,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Vec<(String, Algorithm, DecodingKey)>,
    jwks: Value,
}

impl Tokens {
    /// `issuer` is the URL that tokens name (`https://kubernetes.default.svc`) and, when they ask for nothing else, their
    /// audience. `key_pem` is a P-256 key in PKCS #8, see [`crate::pki::generate_signing_key`].
    ///
    /// # Errors
    /// `BadRequest` if the key cannot be read.
    pub fn new(issuer: &str, key_pem: &str) -> Result<Self, Failure> {
        let unreadable =
            |why: String| Failure::BadRequest(format!("the service-account signing key cannot be read: {why}"));
        let pair = KeyPair::from_pem(key_pem).map_err(|e| unreadable(e.to_string()))?;
        let private = EncodingKey::from_ec_pem(key_pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
        let public_pem = pair.public_key_pem();
        let public = DecodingKey::from_ec_pem(public_pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
        let point = pair.public_key_raw();
        // An uncompressed point: 4, then 32 bytes each of x and y.
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
            return Err(unreadable("it is not a P-256 key".into()));
        };
        let jwks = json!({"keys": [{
            "use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": key_id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]});
        Ok(Self {
            issuer: issuer.to_owned(),
            audiences: vec![issuer.to_owned()],
            public: vec![(key_id.clone(), Algorithm::ES256, public)],
            key_id,
            algorithm: Algorithm::ES256,
            private,
            jwks,
        })
    }

    /// Accepts tokens signed by this RSA key too (PEM): those a stock cluster handed out before.
    ///
    /// # Errors
    /// `BadRequest` if the key cannot be read.
    pub fn accept_rsa(mut self, public_pem: &str) -> Result<Self, Failure> {
        let key = DecodingKey::from_rsa_pem(public_pem.as_bytes())
            .map_err(|e| Failure::BadRequest(format!("the service-account public key cannot be read: {e}")))?;
        self.public.push((String::new(), Algorithm::RS256, key));
        Ok(self)
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Audiences that mean the API server itself.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The public keys, as `/openid/v1/jwks` shows them.
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// # Errors
    /// `Internal` if the signature cannot be made.
    pub fn sign(&self, claim: &Claim, now: SystemTime, id: String) -> Result<Signed, Failure> {
        let audiences = if claim.audiences.is_empty() {
            self.audiences.clone()
        } else {
            claim.audiences.clone()
        };
        let at = seconds(now);
        let payload = Payload {
            aud: Audiences::Many(audiences.clone()),
            exp: at + claim.lifetime.as_secs(),
            iat: at,
            nbf: at,
            iss: self.issuer.clone(),
            jti: id,
            sub: users::service_account(&claim.namespace, &claim.account.name),
            bound: Bound {
                namespace: claim.namespace.clone(),
                node: claim.node.clone(),
                pod: claim.pod.clone(),
                secret: claim.secret.clone(),
                serviceaccount: claim.account.clone(),
            },
        };
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.key_id.clone());
        header.typ = None;
        let token = jsonwebtoken::encode(&header, &payload, &self.private).map_err(Failure::internal)?;
        Ok(Signed {
            token,
            audiences,
            expires: now + claim.lifetime,
        })
    }

    /// Signature, issuer and times. `None`: not one of ours at all, so another authenticator may know it.
    fn read(&self, token: &str) -> Option<Result<Payload, NotAuthenticated>> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let claimed: Payload = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
        if claimed.iss != self.issuer {
            return None;
        }
        let fits = |kid: &str| kid.is_empty() || header.kid.as_deref().is_none_or(|asked| asked == kid);
        let mut last = "no key of this cluster signed it".to_owned();
        for (_, algorithm, key) in self
            .public
            .iter()
            .filter(|(kid, algorithm, _)| fits(kid) && *algorithm == header.alg)
        {
            let mut validation = Validation::new(*algorithm);
            validation.leeway = 0;
            validation.validate_nbf = true;
            // Audiences are compared by the caller: TokenReview asks for others than ours.
            validation.validate_aud = false;
            match jsonwebtoken::decode::<Payload>(token, key, &validation) {
                Ok(data) => return Some(Ok(data.claims)),
                Err(error) => last = error.to_string(),
            }
        }
        Some(Err(NotAuthenticated(format!("service account token: {last}"))))
    }
}

/// Recognises service-account tokens, and asks the cluster whether what they are bound to still lives.
pub struct ServiceAccounts {
    pub tokens: Arc<Tokens>,
    pub cluster: Arc<dyn Cluster>,
}

impl ServiceAccounts {
    /// The user and the audiences out of `wanted` that the token is good for. `None`: not a token of this issuer.
    pub async fn authenticate(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Option<Result<(UserInfo, Vec<String>), NotAuthenticated>> {
        let payload = match self.tokens.read(token)? {
            Ok(payload) => payload,
            Err(error) => return Some(Err(error)),
        };
        Some(self.check(payload, wanted).await)
    }

    async fn check(&self, payload: Payload, wanted: &[String]) -> Result<(UserInfo, Vec<String>), NotAuthenticated> {
        let has = match payload.aud {
            Audiences::One(one) => vec![one],
            Audiences::Many(many) => many,
        };
        let wanted = if wanted.is_empty() {
            self.tokens.audiences()
        } else {
            wanted
        };
        let good: Vec<String> = wanted
            .iter()
            .filter(|audience| has.contains(audience))
            .cloned()
            .collect();
        if good.is_empty() {
            return Err(NotAuthenticated(format!(
                "token audiences {has:?} is invalid for the target audiences {wanted:?}"
            )));
        }
        let Bound {
            namespace,
            node,
            pod,
            secret,
            serviceaccount,
        } = payload.bound;
        self.alive("serviceaccounts", &namespace, &serviceaccount).await?;
        if let Some(pod) = &pod {
            self.alive("pods", &namespace, pod).await?;
        }
        if let Some(secret) = &secret {
            self.alive("secrets", &namespace, secret).await?;
        }
        // A pod's node is told, not checked; a token bound to the node itself dies with it.
        if let (Some(node), None) = (&node, &pod) {
            self.alive("nodes", "", node).await?;
        }
        let mut user = UserInfo {
            name: users::service_account(&namespace, &serviceaccount.name),
            uid: serviceaccount.uid,
            groups: users::service_account_groups(&namespace),
            extra: Default::default(),
        };
        user.groups.push(users::AUTHENTICATED.into());
        let mut say = |key: &str, value: String| {
            if !value.is_empty() {
                user.extra
                    .insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
            }
        };
        if !payload.jti.is_empty() {
            say("credential-id", format!("JTI={}", payload.jti));
        }
        for (kind, named) in [("pod", pod), ("node", node)] {
            let named = named.unwrap_or_default();
            say(&format!("{kind}-name"), named.name);
            say(&format!("{kind}-uid"), named.uid);
        }
        Ok((user, good))
    }

    async fn alive(&self, resource: &str, namespace: &str, named: &Named) -> Result<(), NotAuthenticated> {
        let target = Target::new(Gvr::new("", "v1", resource), namespace, &named.name);
        let caller = users::api_server();
        // The cache first. Only when it says no may it be behind (a token can be younger than the cache's last event).
        let mut why = String::new();
        for version in [ReadVersion::Any, ReadVersion::Latest] {
            match self.cluster.get(&caller, &target, version).await {
                Ok(object) if *object.uid.0 == *named.uid && !long_gone(&object) => return Ok(()),
                Ok(_) => why = format!("{resource} \"{}\" has been deleted", named.name),
                Err(failure) => why = failure.to_string(),
            }
        }
        Err(NotAuthenticated(format!("service account token: {why}")))
    }
}

fn long_gone(object: &Object) -> bool {
    #[derive(Deserialize)]
    struct Head {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        deletion_timestamp: Option<Timestamp>,
    }
    let deleted = object
        .parse::<Head>()
        .ok()
        .and_then(|head| head.metadata.deletion_timestamp);
    deleted.is_some_and(|at| Timestamp::now().duration_since(at).as_secs() > FAREWELL.as_secs() as i64)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests;
