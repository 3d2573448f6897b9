//! From text to a tree: the grammar of CEL, by recursive descent. Macros are spread out on the way (`macros.rs`).

use std::borrow::Cow;

use crate::ast::{Entry, Id, Kind, Literal, Tree};
use crate::macros;
use crate::scan::{Token, scan};
use crate::shape::RESERVED;

/// Deeper expressions are refused rather than walked.
const DEEPEST: usize = 250;

const STARTS: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// A mistake and its place, in characters.
pub(crate) type Mistake = (u32, String);

/// # Errors
/// The first mistake.
pub(crate) fn parse(text: &str) -> Result<(Tree, Id), Mistake> {
    let tokens = scan(text).map_err(syntax)?;
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        tree: Tree::default(),
    };
    let root = parser.expression()?;
    match parser.peek() {
        Token::End => Ok((parser.tree, root)),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

fn syntax((at, says): Mistake) -> Mistake {
    (at, format!("Syntax error: {says}"))
}

pub(crate) struct Parser {
    tokens: Vec<(Token, u32)>,
    next: usize,
    depth: usize,
    pub(crate) tree: Tree,
}

/// Binary operators by how tightly they bind, loosest first; `&&` and `||` apart.
const LEVELS: [&[(&str, &str)]; 3] = [
    &[
        ("<", "_<_"),
        ("<=", "_<=_"),
        (">", "_>_"),
        (">=", "_>=_"),
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn at(&self) -> u32 {
        self.tokens[self.next].1
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.next].0.clone();
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if *s == sign)
    }

    fn took(&mut self, sign: &str) -> bool {
        let is = self.is(sign);
        if is {
            self.take();
        }
        is
    }

    fn expect(&mut self, sign: &str) -> Result<(), Mistake> {
        if self.took(sign) {
            return Ok(());
        }
        Err(self.unexpected(&format!("'{sign}'")))
    }

    fn unexpected(&self, expected: &str) -> Mistake {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Name(name) => name.clone(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Number(number) => number.to_string(),
            Token::Literal(Literal::Text(text)) => format!("'{text}'"),
            Token::Literal(Literal::Bool(flag)) => flag.to_string(),
            Token::Literal(Literal::Null) => "null".to_owned(),
            Token::Literal(Literal::Uint(number)) => format!("{number}u"),
            Token::Literal(Literal::Int(number)) => number.to_string(),
            Token::Literal(Literal::Double(number)) => number.to_string(),
            Token::Literal(Literal::Bytes(_)) => "bytes".to_owned(),
        };
        let how = if expected == "<EOF>" {
            "extraneous"
        } else {
            "mismatched"
        };
        syntax((self.at(), format!("{how} input '{found}' expecting {expected}")))
    }

    pub(crate) fn call(&mut self, at: u32, function: impl Into<Cow<'static, str>>, args: Vec<Id>) -> Id {
        let function = function.into();
        self.tree.push(
            at,
            Kind::Call {
                function,
                target: None,
                args,
            },
        )
    }

    fn expression(&mut self) -> Result<Id, Mistake> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err((self.at(), format!("expression recursion limit exceeded: {DEEPEST}")));
        }
        let condition = self.logic("||", "_||_")?;
        let mut result = condition;
        let at = self.at();
        if self.took("?") {
            let yes = self.logic("||", "_||_")?;
            self.expect(":")?;
            let no = self.expression()?;
            result = self.call(at, "_?_:_", vec![condition, yes, no]);
        }
        self.depth -= 1;
        Ok(result)
    }

    fn logic(&mut self, sign: &'static str, function: &'static str) -> Result<Id, Mistake> {
        let term = |p: &mut Self| {
            if sign == "||" {
                p.logic("&&", "_&&_")
            } else {
                p.binary(0)
            }
        };
        let mut left = term(self)?;
        loop {
            let at = self.at();
            if !self.took(sign) {
                return Ok(left);
            }
            let right = term(self)?;
            left = self.call(at, function, vec![left, right]);
        }
    }

    fn binary(&mut self, level: usize) -> Result<Id, Mistake> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            let at = self.at();
            let operator = operators.iter().find(|(sign, _)| self.is(sign));
            let Some((_, function)) = operator else {
                return Ok(left);
            };
            self.take();
            let right = self.binary(level + 1)?;
            left = self.call(at, *function, vec![left, right]);
        }
    }

    fn unary(&mut self) -> Result<Id, Mistake> {
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            let at = self.at();
            if !self.is(sign) {
                continue;
            }
            if sign == "-"
                && matches!(
                    self.tokens[self.next + 1].0,
                    Token::Number(_) | Token::Literal(Literal::Double(_))
                )
            {
                return self.member();
            }
            let mut count = 0;
            while self.took(sign) {
                count += 1;
            }
            let of = self.member()?;
            return Ok(if count % 2 == 0 {
                of
            } else {
                self.call(at, function, vec![of])
            });
        }
        self.member()
    }

    fn member(&mut self) -> Result<Id, Mistake> {
        let mut of = self.primary()?;
        loop {
            let at = self.at();
            if self.took(".") {
                let optional = self.took("?");
                let name = match self.peek() {
                    Token::Name(name) => name.clone(),
                    _ => return Err(self.unexpected("IDENTIFIER")),
                };
                self.take();
                let open = self.at();
                if !optional && self.took("(") {
                    let args = self.list(")")?;
                    of = self.method(open, name, of, args)?;
                } else if optional {
                    let field = self.tree.push(at, Kind::Literal(Literal::Text(name)));
                    of = self.call(at, "_?._", vec![of, field]);
                } else {
                    of = self.tree.push(
                        at,
                        Kind::Select {
                            of,
                            field: name,
                            test: false,
                        },
                    );
                }
            } else if self.took("[") {
                let function = if self.took("?") { "_[?_]" } else { "_[_]" };
                let index = self.expression()?;
                self.expect("]")?;
                of = self.call(at, function, vec![of, index]);
            } else if self.is("{") && self.tree.dotted(of).is_some() {
                let name = self.tree.dotted(of).unwrap_or_default();
                of = self.structure(name)?;
            } else {
                return Ok(of);
            }
        }
    }

    fn method(&mut self, at: u32, name: String, target: Id, args: Vec<Id>) -> Result<Id, Mistake> {
        if let Some(spread) = macros::method(self, at, &name, target, &args) {
            return spread;
        }
        Ok(self.tree.push(
            at,
            Kind::Call {
                function: name.into(),
                target: Some(target),
                args,
            },
        ))
    }

    fn list(&mut self, close: &str) -> Result<Vec<Id>, Mistake> {
        let mut items = Vec::new();
        while !self.took(close) {
            items.push(self.expression()?);
            if !self.is(close) {
                self.expect(",")?;
            }
        }
        Ok(items)
    }

    fn structure(&mut self, name: String) -> Result<Id, Mistake> {
        let at = self.at();
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.took("}") {
            let optional = self.took("?");
            let field = match self.peek() {
                Token::Name(field) => field.clone(),
                _ => return Err(self.unexpected("IDENTIFIER")),
            };
            self.take();
            let place = self.at();
            self.expect(":")?;
            let key = self.tree.push(place, Kind::Literal(Literal::Null));
            let value = self.expression()?;
            fields.push((field, Entry { key, value, optional }));
            if !self.is("}") {
                self.expect(",")?;
            }
        }
        Ok(self.tree.push(at, Kind::Struct { name, fields }))
    }

    fn primary(&mut self) -> Result<Id, Mistake> {
        let at = self.at();
        match self.peek().clone() {
            Token::Literal(literal) => {
                self.take();
                Ok(self.tree.push(at, Kind::Literal(literal)))
            }
            Token::Number(number) => {
                self.take();
                let literal = i64::try_from(number).map_err(|_| (at, "invalid int literal".to_owned()))?;
                Ok(self.tree.push(at, Kind::Literal(Literal::Int(literal))))
            }
            Token::Sign("-") => {
                self.take();
                let literal = match self.take() {
                    Token::Number(number) if number <= 1 << 63 => Literal::Int((number as i64).wrapping_neg()),
                    Token::Literal(Literal::Double(number)) => Literal::Double(-number),
                    _ => return Err((at, "invalid int literal".into())),
                };
                Ok(self.tree.push(at, Kind::Literal(literal)))
            }
            Token::Sign("(") => {
                self.take();
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.take();
                let mut items = Vec::new();
                while !self.took("]") {
                    let optional = self.took("?");
                    items.push((self.expression()?, optional));
                    if !self.is("]") {
                        self.expect(",")?;
                    }
                }
                Ok(self.tree.push(at, Kind::List(items)))
            }
            Token::Sign("{") => {
                self.take();
                let mut entries = Vec::new();
                while !self.took("}") {
                    let optional = self.took("?");
                    let key = self.expression()?;
                    self.expect(":")?;
                    let value = self.expression()?;
                    entries.push(Entry { key, value, optional });
                    if !self.is("}") {
                        self.expect(",")?;
                    }
                }
                Ok(self.tree.push(at, Kind::Map(entries)))
            }
            Token::Sign(".") => {
                // Names from the root: there is no container, so it says nothing.
                self.take();
                self.name()
            }
            Token::Name(_) => self.name(),
            _ => Err(self.unexpected(STARTS)),
        }
    }

    fn name(&mut self) -> Result<Id, Mistake> {
        let at = self.at();
        let Token::Name(name) = self.peek().clone() else {
            return Err(self.unexpected("IDENTIFIER"));
        };
        self.take();
        let open = self.at();
        if self.took("(") {
            let args = self.list(")")?;
            if let Some(spread) = macros::global(self, open, &name, &args) {
                return spread;
            }
            return Ok(self.call(open, name, args));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err((at, format!("reserved identifier: {name}")));
        }
        Ok(self.tree.push(at, Kind::Name(name)))
    }
}
