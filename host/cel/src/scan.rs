//! From text to tokens.

use crate::ast::Literal;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Name(String),
    Literal(Literal),
    /// A whole number whose sign is not known yet: it may be one too big for a positive one.
    Number(u64),
    /// Punctuation, and the operator `in`.
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// The tokens with their places (in characters), the last one [`Token::End`].
///
/// # Errors
/// The place and what is wrong there.
pub(crate) fn scan(text: &str) -> Result<Vec<(Token, u32)>, (u32, String)> {
    let letters: Vec<char> = text.chars().collect();
    let mut scanner = Scanner {
        letters: &letters,
        at: 0,
    };
    let mut tokens = Vec::new();
    loop {
        scanner.skip_blank();
        let at = scanner.at as u32;
        let token = scanner.token()?;
        let end = token == Token::End;
        tokens.push((token, at));
        if end {
            return Ok(tokens);
        }
    }
}

struct Scanner<'t> {
    letters: &'t [char],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.letters.get(self.at + ahead).copied()
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek(0) {
                Some(' ' | '\t' | '\r' | '\n' | '\u{c}') => self.at += 1,
                Some('/') if self.peek(1) == Some('/') => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Result<Token, (u32, String)> {
        let Some(letter) = self.peek(0) else {
            return Ok(Token::End);
        };
        if let Some(literal) = self.text_literal()? {
            return Ok(Token::Literal(literal));
        }
        if letter == '_' || letter.is_ascii_alphabetic() {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c == '_' || c.is_ascii_alphanumeric()) {
                self.at += 1;
            }
            let name: String = self.letters[start..self.at].iter().collect();
            return Ok(match name.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                _ => Token::Name(name),
            });
        }
        if letter.is_ascii_digit() || letter == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            return self.number();
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)) {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        Err((self.at as u32, format!("token recognition error at: '{letter}'")))
    }

    fn number(&mut self) -> Result<Token, (u32, String)> {
        let start = self.at;
        let digits = |s: &mut Self, hex: bool| {
            while s
                .peek(0)
                .is_some_and(|c| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() })
            {
                s.at += 1;
            }
        };
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            digits(self, true);
            let text: String = self.letters[start + 2..self.at].iter().collect();
            return self.whole(start, u64::from_str_radix(&text, 16).ok());
        }
        digits(self, false);
        let mut real = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            real = true;
            self.at += 1;
            digits(self, false);
        }
        let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
        if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
            real = true;
            self.at += 1 + sign;
            digits(self, false);
        }
        let text: String = self.letters[start..self.at].iter().collect();
        if real {
            return match text.parse() {
                Ok(number) => Ok(Token::Literal(Literal::Double(number))),
                Err(_) => Err((start as u32, "invalid double literal".into())),
            };
        }
        self.whole(start, text.parse().ok())
    }

    fn whole(&mut self, start: usize, number: Option<u64>) -> Result<Token, (u32, String)> {
        let unsigned = matches!(self.peek(0), Some('u' | 'U'));
        if unsigned {
            self.at += 1;
        }
        match (number, unsigned) {
            (Some(number), true) => Ok(Token::Literal(Literal::Uint(number))),
            (Some(number), false) => Ok(Token::Number(number)),
            (None, true) => Err((start as u32, "invalid uint literal".into())),
            (None, false) => Err((start as u32, "invalid int literal".into())),
        }
    }

    /// `'…'`, `"…"`, tripled or not, with `r` and `b` before it.
    fn text_literal(&mut self) -> Result<Option<Literal>, (u32, String)> {
        let start = self.at;
        let (mut raw, mut bytes, mut ahead) = (false, false, 0);
        while let Some(letter) = self.peek(ahead) {
            match letter {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes && !raw => bytes = true,
                '\'' | '"' => break,
                _ => return Ok(None),
            }
            ahead += 1;
        }
        let Some(quote) = self.peek(ahead) else {
            return Ok(None);
        };
        self.at += ahead;
        let tripled = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let width = if tripled { 3 } else { 1 };
        self.at += width;
        let mut out = Vec::new();
        let mut letter_bytes = [0; 4];
        loop {
            let closes = (0..width).all(|i| self.peek(i) == Some(quote));
            if closes {
                self.at += width;
                break;
            }
            match self.peek(0) {
                None | Some('\n' | '\r') if !tripled => return Err(unclosed(self.letters, start)),
                None => return Err(unclosed(self.letters, start)),
                Some('\\') if !raw => self.escape(bytes, &mut out)?,
                Some(letter) => {
                    // In a raw text a backslash keeps the quote after it from closing.
                    if letter == '\\' {
                        out.push(b'\\');
                        self.at += 1;
                        if self.peek(0) == Some(quote) {
                            out.extend_from_slice(quote.encode_utf8(&mut letter_bytes).as_bytes());
                            self.at += 1;
                        }
                        continue;
                    }
                    out.extend_from_slice(letter.encode_utf8(&mut letter_bytes).as_bytes());
                    self.at += 1;
                }
            }
        }
        if bytes {
            return Ok(Some(Literal::Bytes(out)));
        }
        match String::from_utf8(out) {
            Ok(text) => Ok(Some(Literal::Text(text))),
            Err(_) => Err((start as u32, "Invalid string literal".into())),
        }
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), (u32, String)> {
        let start = self.at;
        let wrong = || (start as u32, "Invalid escape sequence in a literal".to_owned());
        let letter = self.peek(1).ok_or_else(wrong)?;
        self.at += 2;
        let simple = match letter {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => Some(letter as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            return Ok(());
        }
        let (radix, count) = match letter {
            'x' | 'X' => (16, 2),
            'u' if !bytes => (16, 4),
            'U' if !bytes => (16, 8),
            '0'..='3' => {
                self.at -= 1;
                (8, 3)
            }
            _ => return Err(wrong()),
        };
        let mut code = 0;
        for _ in 0..count {
            let digit = self.peek(0).and_then(|c| c.to_digit(radix)).ok_or_else(wrong)?;
            code = code * radix + digit;
            self.at += 1;
        }
        if bytes {
            out.push(u8::try_from(code).map_err(|_| wrong())?);
        } else {
            let letter = char::from_u32(code).ok_or_else(wrong)?;
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

fn unclosed(letters: &[char], start: usize) -> (u32, String) {
    let rest: String = letters[start..].iter().collect();
    (start as u32, format!("token recognition error at: '{rest}'"))
}
