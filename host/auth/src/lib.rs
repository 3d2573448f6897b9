//! Who is asking and may they: authenticators, RBAC, certificates, tokens, audit events. No HTTP.
//!
//! Start at [`Authenticators`] (credentials become a user) and [`rbac::Rbac`] (a user and a question become yes or no).
//! What Kubernetes grants out of the box is one table, [`defaults`].
//!
//! Does not know: HTTP, the registry (it reads and writes through `client::Cluster` like everybody), where files live.

pub mod audit;
mod authenticate;
pub mod certificate;
pub mod defaults;
pub mod impersonate;
pub mod kubeconfig;
pub mod pki;
pub mod rbac;
pub mod review;
pub mod token;
pub mod users;

pub use authenticate::{Authenticated, Authenticators, Credentials, NotAuthenticated};
pub use rbac::{Ask, Rbac, What};
