//! Compiling: what an expression may name, and what comes of it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use regex::Regex;

use crate::ast::{Kind, Literal};
use crate::check::{self, Checked};
use crate::estimate::{self, Estimate};
use crate::eval::{Fault, Machine};
use crate::library::authorizer::Authorizer;
use crate::parse::{Mistake, parse};
use crate::pattern;
use crate::shape::{Shape, ShapeKind};
use crate::types::Type;
use crate::value::Val;

/// What expressions may name beside functions. Cheap to clone.
#[derive(Clone, Default)]
pub struct Env {
    variables: Vec<(String, Type, Option<Arc<Shape>>)>,
    objects: HashMap<Arc<str>, Arc<Shape>>,
    /// Types of which any field may be set, by the start of their names (`Object`, `Object.spec`).
    open: Vec<&'static str>,
    patches: bool,
}

/// Why an expression does not compile: kube-apiserver's words, with the places in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl Env {
    /// A variable of which nothing is known.
    pub fn dynamic(self, name: &str) -> Self {
        self.variable_of(name, Type::Dyn)
    }

    pub fn variable_of(mut self, name: &str, of: Type) -> Self {
        self.variables.push((name.to_owned(), of, None));
        self
    }

    /// A variable of a known shape.
    pub fn shaped(mut self, name: &str, shape: &Arc<Shape>) -> Self {
        check::collect_objects(shape, &mut self.objects);
        self.variables.push((name.to_owned(), shape.ty(), Some(shape.clone())));
        self
    }

    /// A variable that may be absent: `optional(…)` of a known shape.
    pub fn shaped_optional(mut self, name: &str, shape: &Arc<Shape>) -> Self {
        check::collect_objects(shape, &mut self.objects);
        self.variables.push((name.to_owned(), Type::optional(shape.ty()), None));
        self
    }

    /// Allows `Object{…}` and `JSONPatch{…}`, and `jsonpatch.escapeKey`.
    pub fn patches(mut self) -> Self {
        self.open.push("Object");
        self.patches = true;
        let text = |most| {
            Arc::new(Shape {
                kind: ShapeKind::Text,
                most,
                least_bytes: 2,
            })
        };
        let field = |name: &str, shape| {
            let field = crate::shape::Field {
                name: name.to_owned(),
                shape,
                nullable: false,
            };
            (name.to_owned(), field)
        };
        let any = Arc::new(Shape {
            kind: ShapeKind::Opaque,
            most: 0,
            least_bytes: 1,
        });
        let fields = [
            field("op", text(0)),
            field("path", text(0)),
            field("from", text(0)),
            field("value", any),
        ];
        let patch = Shape {
            kind: ShapeKind::Object("JSONPatch".into(), fields.into_iter().collect()),
            most: 0,
            least_bytes: 2,
        };
        self.objects.insert("JSONPatch".into(), Arc::new(patch));
        self
    }

    /// Sets what a variable is, or adds it.
    pub fn set(&mut self, name: &str, of: Type) {
        self.variables.retain(|(n, ..)| n != name);
        self.variables.push((name.to_owned(), of, None));
    }

    /// A type with the given fields, of which nothing more is known.
    pub fn add_object(&mut self, shape: Arc<Shape>) {
        check::collect_objects(&shape, &mut self.objects);
    }

    pub(crate) fn variable(&self, name: &str) -> Option<Type> {
        self.variables
            .iter()
            .find(|(n, ..)| n == name)
            .map(|(_, of, _)| of.clone())
    }

    /// The first shape among the variables.
    pub(crate) fn shape(&self) -> Option<&Shape> {
        self.variables.iter().find_map(|(_, _, shape)| shape.as_deref())
    }

    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        let open = self.is_open(name);
        (open || self.objects.contains_key(name)).then(|| Type::object(name))
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.iter().any(|root| {
            name.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The type of a field of a named object.
    pub(crate) fn field(&self, object: &str, field: &str) -> Option<Type> {
        if self.is_open(object) {
            return Some(Type::Dyn);
        }
        match &self.objects.get(object)?.kind {
            ShapeKind::Object(_, fields) => fields.get(field).map(|field| field.shape.ty()),
            _ => None,
        }
    }

    pub(crate) fn allows(&self, function: &str) -> bool {
        self.patches || function != "jsonpatch.escapeKey"
    }

    /// # Errors
    /// Every mistake with the line it is in, as cel-go shows them.
    pub fn compile(&self, source: &str) -> Result<Program, Refused> {
        let told = |mistakes: Vec<Mistake>| Refused(tell(source, &mistakes));
        let (tree, root) = parse(source).map_err(|mistake| told(vec![mistake]))?;
        let checked = check::check(self, tree, root).map_err(told)?;
        let mut patterns = HashMap::new();
        for node in &checked.tree.nodes {
            let Kind::Call { function, args, .. } = &node.kind else {
                continue;
            };
            let wants = matches!(function.as_ref(), "matches" | "find" | "findAll");
            for arg in args.iter().filter(|_| wants) {
                if let Kind::Literal(Literal::Text(text)) = checked.tree.kind(*arg) {
                    patterns.insert(text.clone(), OnceLock::new());
                }
            }
        }
        let mut program = Program {
            checked,
            constants: HashMap::new(),
            patterns,
        };
        program
            .fold_constants()
            .map_err(|fault| Refused(format!("program instantiation failed: {}", fault.message)))?;
        Ok(program)
    }

    /// What running it costs, at least and at most, given how long things may be.
    pub fn estimate(&self, program: &Program) -> Estimate {
        estimate::estimate(self, &program.checked)
    }
}

/// `ERROR: <input>:1:5: …` with the line and a mark below it.
fn tell(source: &str, mistakes: &[Mistake]) -> String {
    let mut shown = Vec::new();
    for (at, says) in mistakes {
        let mut left = *at as usize;
        let mut number = 1;
        let mut found = "";
        for line in source.split('\n') {
            found = line;
            let length = line.chars().count();
            if left <= length {
                break;
            }
            left -= length + 1;
            number += 1;
        }
        let dots = ".".repeat(left);
        shown.push(format!(
            "ERROR: <input>:{number}:{}: {says}\n | {}\n | {dots}^",
            left + 1,
            found.replace('\t', " ")
        ));
    }
    shown.join("\n")
}

/// A compiled expression. Keeps nothing between calls.
#[derive(Debug)]
pub struct Program {
    pub(crate) checked: Checked,
    /// What parts of the expression come to whatever the variables are, by node.
    pub(crate) constants: HashMap<u32, Val<'static>>,
    /// Expressions written out, compiled when first needed.
    patterns: HashMap<String, OnceLock<Option<Regex>>>,
}

impl Program {
    /// The type of its value.
    pub fn ty(&self) -> &Type {
        &self.checked.types[self.checked.root as usize]
    }

    /// Whether it reads a variable.
    pub fn reads(&self, variable: &str) -> bool {
        self.checked.reads.iter().any(|name| name == variable)
    }

    /// The value and what it cost.
    ///
    /// # Errors
    /// What went wrong; [`Fault::over`] where it cost more than `limit`.
    pub fn run<'a>(
        &'a self,
        variables: &[(&str, Val<'a>)],
        authorizer: Option<&'a dyn Authorizer>,
        limit: u64,
    ) -> (Result<Val<'a>, Fault>, u64) {
        let mut machine = Machine::new(self, variables, authorizer, limit);
        let result = machine.run();
        (result, machine.cost)
    }

    /// A regular expression, from the source or from elsewhere.
    pub(crate) fn pattern(&self, text: &str) -> Result<std::borrow::Cow<'_, Regex>, Fault> {
        if let Some(known) = self.patterns.get(text)
            && let Some(regex) = known.get_or_init(|| pattern::compile(text).ok())
        {
            return Ok(std::borrow::Cow::Borrowed(regex));
        }
        pattern::compile(text).map(std::borrow::Cow::Owned).map_err(Fault::new)
    }
}
