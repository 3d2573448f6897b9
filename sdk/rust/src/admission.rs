//! Admission rules: what is asked about a request, and how to answer.

use crate::bindings::admission::exports::pilotis::admission as wit;
use crate::bindings::host::pilotis::core::types;
use crate::bindings::lifecycle::exports::pilotis::core::lifecycle;
use crate::columns::Columns;
use crate::fields::Fields;
use crate::view::View;
use crate::{Error, Result, Value};

pub use wit::about::{MatchRule, Operation, Phase};
pub use wit::review::{Charge, Denial, User};

/// A request as a rule sees it: with the fields `T` that it asked for.
#[derive(Debug, Clone)]
pub struct Request<T, N = ()> {
    pub phase: Phase,
    pub operation: Operation,
    /// `apps/v1/Deployment`.
    pub kind: String,
    /// `deployments`.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    pub namespace: String,
    /// Empty when the name is generated later.
    pub name: String,
    pub user: User,
    /// `None` on delete.
    pub object: Option<T>,
    /// As it stands in the store; `None` on create.
    pub old: Option<T>,
    /// The namespace it is in; `None` for cluster-scoped objects.
    pub in_namespace: Option<N>,
    pub dry_run: bool,
}

/// What a rule says. [`Answer::allow`] and [`Answer::deny`] begin one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub denied: Option<Denial>,
    /// Operations of RFC 6902; only in the mutating phase.
    pub patch: Vec<Value>,
    pub warnings: Vec<String>,
    pub audit: Vec<(String, String)>,
    pub charges: Vec<Charge>,
}

impl Answer {
    pub fn allow() -> Self {
        Self::default()
    }

    /// With HTTP status 403. kubectl prints the message: what is wrong, where, what to do.
    pub fn deny(message: impl Into<String>) -> Self {
        Self {
            denied: Some(Denial {
                code: 403,
                message: message.into(),
            }),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn warn(mut self, line: impl Into<String>) -> Self {
        self.warnings.push(line.into());
        self
    }

    /// One step of a JSON patch: `add`, `replace` or `remove` at a JSON pointer.
    #[must_use]
    pub fn patch(mut self, op: &str, path: &str, value: Value) -> Self {
        let mut step = serde_json::json!({"op": op, "path": path});
        if op != "remove" {
            step["value"] = value;
        }
        self.patch.push(step);
        self
    }
}

/// A function that answers a request, with or without reading the cluster: `fn(Request<T>) -> Result<Answer>` or
/// `fn(Request<T>, &View) -> Result<Answer>`.
pub trait Review<Args> {
    /// Paths of the object's fields, and of its namespace's.
    const WANTED: (&'static str, &'static str);

    /// # Errors
    /// Whatever the function says; the Plugin's `failurePolicy` decides what that means.
    fn review(&self, request: wit::review::Request, view: &View) -> Result<Answer>;
}

impl<F, T: Fields, N: NamespaceFields> Review<(T, N)> for F
where
    F: Fn(Request<T, N>) -> Result<Answer>,
{
    const WANTED: (&'static str, &'static str) = (T::PATHS, N::PATHS);

    fn review(&self, request: wit::review::Request, _: &View) -> Result<Answer> {
        self(typed(request)?)
    }
}

impl<F, T: Fields, N: NamespaceFields> Review<(T, N, View)> for F
where
    F: Fn(Request<T, N>, &View) -> Result<Answer>,
{
    const WANTED: (&'static str, &'static str) = (T::PATHS, N::PATHS);

    fn review(&self, request: wit::review::Request, view: &View) -> Result<Answer> {
        self(typed(request)?, view)
    }
}

/// Fields of the namespace; `()` asks for none, and then none cross.
pub trait NamespaceFields: Sized {
    const PATHS: &'static str;

    /// # Errors
    /// As [`Fields::read`].
    fn of(columns: &[u8]) -> Result<Option<Self>>;
}

impl NamespaceFields for () {
    const PATHS: &'static str = "";

    fn of(_: &[u8]) -> Result<Option<Self>> {
        Ok(None)
    }
}

/// Wraps a [`Fields`] struct to be read from the namespace.
#[derive(Debug, Clone)]
pub struct OfNamespace<T>(pub T);

impl<T: Fields> NamespaceFields for OfNamespace<T> {
    const PATHS: &'static str = T::PATHS;

    fn of(columns: &[u8]) -> Result<Option<Self>> {
        Ok(row(columns)?.map(OfNamespace))
    }
}

fn row<T: Fields>(bytes: &[u8]) -> Result<Option<T>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let row = Columns::parse(bytes)?.iter().next();
    row.map(|row| T::read(row).map_err(|wrong| Error::new(types::Reason::Invalid, wrong)))
        .transpose()
}

fn typed<T: Fields, N: NamespaceFields>(request: wit::review::Request) -> Result<Request<T, N>> {
    Ok(Request {
        phase: request.phase,
        operation: request.operation,
        kind: request.kind,
        resource: request.resource,
        subresource: request.subresource,
        namespace: request.namespace,
        name: request.name,
        user: request.user,
        object: row(&request.object)?,
        old: row(&request.old)?,
        in_namespace: N::of(&request.namespace_object)?,
        dry_run: request.dry_run,
    })
}

/// What the macro says of a rule.
#[doc(hidden)]
pub trait Rule: 'static {
    const PHASES: &'static [Phase];
    /// `create update pods`, `create deployments.apps`, as [`crate::controller`] asks are written.
    const RULES: &'static [&'static str];
    const ASKS: &'static [&'static str];
    const OCCASION: Occasion;
    const CONFIG_SCHEMA: &'static str;
    const WANTED: (&'static str, &'static str);

    fn review(request: wit::review::Request, view: &View) -> Result<Answer>;
}

/// All empty: always asked.
#[doc(hidden)]
pub struct Occasion {
    pub fields: &'static [&'static str],
    pub of_namespace: &'static [&'static str],
    pub kinds: &'static [&'static str],
}

/// The paths a function wants, found by its type.
#[doc(hidden)]
pub const fn wanted<A, F: Review<A>>(_: &F) -> (&'static str, &'static str) {
    F::WANTED
}

#[doc(hidden)]
pub struct Exported<R>(std::marker::PhantomData<R>);

impl<R: Rule> wit::about::Guest for Exported<R> {
    fn describe() -> wit::about::Description {
        let Occasion {
            fields,
            of_namespace,
            kinds,
        } = R::OCCASION;
        let occasion = wit::about::Occasion {
            fields: fields.join(" "),
            of_namespace: of_namespace.join(" "),
            kinds: kinds.iter().map(|&kind| kind.to_owned()).collect(),
        };
        wit::about::Description {
            occasion: (fields.len() + of_namespace.len() + kinds.len() > 0).then_some(occasion),
            phases: R::PHASES.to_vec(),
            rules: R::RULES.iter().map(|text| match_rule(text)).collect(),
            wanted: R::WANTED.0.to_owned(),
            wanted_of_namespace: R::WANTED.1.to_owned(),
            asks: R::ASKS.iter().map(|ask| crate::controller::rule(ask)).collect(),
            config_schema: R::CONFIG_SCHEMA.to_owned(),
        }
    }
}

fn match_rule(text: &str) -> MatchRule {
    let rule = crate::controller::rule(text);
    let operations = rule.verbs.iter().flat_map(|verb| match verb.as_str() {
        "create" => vec![Operation::Create],
        "update" => vec![Operation::Update],
        "delete" => vec![Operation::Delete],
        "connect" => vec![Operation::Connect],
        "*" => vec![
            Operation::Create,
            Operation::Update,
            Operation::Delete,
            Operation::Connect,
        ],
        other => panic!("{other:?} is no operation; create, update, delete, connect or *"),
    });
    MatchRule {
        operations: operations.collect(),
        groups: rule.groups,
        versions: vec!["*".to_owned()],
        resources: rule.resources,
    }
}

impl<R: Rule> wit::review::Guest for Exported<R> {
    fn review(request: wit::review::Request) -> std::result::Result<wit::review::Answer, types::Failure> {
        let answer = R::review(request, &View::of_host())?;
        let patch = (!answer.patch.is_empty()).then(|| Value::Array(answer.patch).to_string().into_bytes());
        Ok(wit::review::Answer {
            denied: answer.denied,
            patch,
            warnings: answer.warnings,
            audit: answer.audit,
            charges: answer.charges,
        })
    }
}

impl<R: Rule> lifecycle::Guest for Exported<R> {
    fn configure(config: Vec<u8>) -> std::result::Result<(), types::Failure> {
        crate::controller::set_config(&config)?;
        Ok(())
    }
}
