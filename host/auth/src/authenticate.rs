//! Credentials in, user out: the authenticators in the order they are asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::UserInfo;
use moka::future::Cache;
use sha2::{Digest, Sha256};

use crate::token::ServiceAccounts;
use crate::users;

/// How long a token that was good stays good without asking again. Kubernetes' own figure.
const REMEMBER: Duration = Duration::from_secs(10);
const REMEMBERED: u64 = 10_000;

/// What a client shows. Several at once are allowed: the certificate is looked at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// Whom the connection's verified certificate names, see [`crate::certificate::user`].
    pub certificate: Option<&'a Arc<UserInfo>>,
    /// Without the word `Bearer`.
    pub bearer: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    pub user: Arc<UserInfo>,
    /// The audiences a token is good for, out of those asked; empty for other credentials.
    pub audiences: Vec<String>,
}

/// Credentials were shown and are no good. The text is for logs and TokenReview; clients are told `Unauthorized`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAuthenticated(pub String);

/// All the ways in. Anyone without credentials is `system:anonymous`, who may do what RBAC says.
pub struct Authenticators {
    service_accounts: Option<ServiceAccounts>,
    /// By SHA-256, so that neither the table nor its lookups leak a token.
    fixed: HashMap<[u8; 32], Arc<UserInfo>>,
    anonymous: Option<Arc<UserInfo>>,
    remembered: Cache<[u8; 32], Authenticated>,
}

impl Default for Authenticators {
    fn default() -> Self {
        Self {
            service_accounts: None,
            fixed: HashMap::new(),
            anonymous: Some(Arc::new(users::anonymous())),
            remembered: Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBER).build(),
        }
    }
}

impl Authenticators {
    pub fn service_accounts(mut self, accounts: ServiceAccounts) -> Self {
        self.service_accounts = Some(accounts);
        self
    }

    /// A bearer token that stands for `user` as long as the server runs.
    pub fn fixed_token(mut self, token: &str, mut user: UserInfo) -> Self {
        if !user.groups.iter().any(|g| g == users::AUTHENTICATED) {
            user.groups.push(users::AUTHENTICATED.into());
        }
        self.fixed.insert(digest(token), Arc::new(user));
        self
    }

    /// Refuses requests without credentials.
    pub fn without_anonymous(mut self) -> Self {
        self.anonymous = None;
        self
    }

    /// # Errors
    /// Credentials were shown and none was good, or none was shown and anonymous requests are refused.
    pub async fn authenticate(&self, shown: Credentials<'_>) -> Result<Arc<UserInfo>, NotAuthenticated> {
        if let Some(user) = shown.certificate {
            return Ok(user.clone());
        }
        match shown.bearer {
            Some(token) => Ok(self.token(token, &[]).await?.user),
            None => self
                .anonymous
                .clone()
                .ok_or_else(|| NotAuthenticated("no credentials were shown".into())),
        }
    }

    /// A bearer token for the given audiences; none given: for the API server itself.
    ///
    /// # Errors
    /// The token is unknown, expired, meant for somebody else, or bound to something that is gone.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Result<Authenticated, NotAuthenticated> {
        let digest = digest(token);
        if let Some(user) = self.fixed.get(&digest) {
            return Ok(Authenticated {
                user: user.clone(),
                audiences: audiences.to_vec(),
            });
        }
        let Some(accounts) = &self.service_accounts else {
            return Err(unknown());
        };
        if audiences.is_empty()
            && let Some(known) = self.remembered.get(&digest).await
        {
            return Ok(known);
        }
        let (user, good) = accounts
            .authenticate(token, audiences)
            .await
            .unwrap_or_else(|| Err(unknown()))?;
        let authenticated = Authenticated {
            user: Arc::new(user),
            audiences: good,
        };
        if audiences.is_empty() {
            self.remembered.insert(digest, authenticated.clone()).await;
        }
        Ok(authenticated)
    }
}

fn unknown() -> NotAuthenticated {
    NotAuthenticated("invalid bearer token".into())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
