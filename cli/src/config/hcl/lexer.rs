//! Characters to tokens of HCL 1. The cursor serves the JSON reader too.

use super::{HclError, Pos};

/// A place in a text, moving forward one character at a time.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    pos: Pos,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text, pos: Pos { line: 1, column: 1 } }
    }

    pub fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        if c == '\n' {
            self.pos = Pos { line: self.pos.line + 1, column: 1 };
        } else {
            self.pos.column += 1;
        }
        Some(c)
    }

    pub fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        if self.peek().is_some_and(wanted) { self.next() } else { None }
    }

    /// Takes a text that comes next, or nothing.
    pub fn take(&mut self, wanted: &str) -> bool {
        let comes = self.rest.starts_with(wanted);
        if comes {
            for _ in wanted.chars() {
                self.next();
            }
        }
        comes
    }

    pub fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut out = String::new();
        while let Some(c) = self.next_if(&wanted) {
            out.push(c);
        }
        out
    }

    /// The rest of the line without its end, which is taken too; `None` at the end of the text.
    pub fn line(&mut self) -> Option<String> {
        self.peek()?;
        let line = self.take_while(|c| c != '\n');
        self.next();
        Some(line)
    }

    pub fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub fn pos(&self) -> Pos {
        self.pos
    }

    pub fn error(&self, problem: impl Into<String>) -> HclError {
        HclError::new(self.pos, problem)
    }
}

/// What a text is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    Number(String),
    Float(String),
    Mark(char),
    End,
}

impl Token {
    /// How an error names it.
    pub fn name(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Text(_) => "a string".to_owned(),
            Self::Number(text) | Self::Float(text) => format!("number `{text}`"),
            Self::Mark(mark) => format!("`{mark}`"),
            Self::End => "the end of the text".to_owned(),
        }
    }
}

/// The next token and where it begins.
pub(super) fn next(cursor: &mut Cursor<'_>) -> Result<(Token, Pos), HclError> {
    skip_blank(cursor)?;
    let pos = cursor.pos();
    let token = match cursor.peek() {
        None => Token::End,
        Some('"') => Token::Text(quoted(cursor)?),
        Some('<') => Token::Text(heredoc(cursor)?),
        Some(c) if c.is_alphabetic() || c == '_' => {
            Token::Word(cursor.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
        }
        Some(c) if c.is_ascii_digit() || c == '-' => number(cursor)?,
        Some(mark @ ('{' | '}' | '[' | ']' | ',' | '=')) => {
            cursor.next();
            Token::Mark(mark)
        }
        Some(c) => return Err(cursor.error(format!("character {c:?} is not allowed here"))),
    };
    Ok((token, pos))
}

fn skip_blank(cursor: &mut Cursor<'_>) -> Result<(), HclError> {
    loop {
        cursor.take_while(char::is_whitespace);
        let start = cursor.pos();
        if cursor.take("#") || cursor.take("//") {
            cursor.take_while(|c| c != '\n');
        } else if cursor.take("/*") {
            while !cursor.take("*/") {
                if cursor.next().is_none() {
                    return Err(HclError::new(start, "comment not terminated"));
                }
            }
        } else {
            return Ok(());
        }
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<Token, HclError> {
    let start = cursor.pos();
    let mut text = String::new();
    text.extend(cursor.next_if(|c| c == '-'));
    let hex = cursor.take("0x") || cursor.take("0X");
    if hex {
        text.push_str("0x");
    }
    let digits = cursor.take_while(|c| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() });
    text.push_str(&digits);
    let mut float = false;
    if !hex && let Some(point) = cursor.next_if(|c| c == '.') {
        float = true;
        text.push(point);
        text.push_str(&cursor.take_while(|c| c.is_ascii_digit()));
    }
    if !hex && let Some(exponent) = cursor.next_if(|c| matches!(c, 'e' | 'E')) {
        float = true;
        text.push(exponent);
        text.extend(cursor.next_if(|c| matches!(c, '-' | '+')));
        let power = cursor.take_while(|c| c.is_ascii_digit());
        if power.is_empty() {
            return Err(HclError::new(start, format!("number `{text}` has no digits in its exponent")));
        }
        text.push_str(&power);
    }
    if digits.is_empty() || cursor.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
        text.extend(cursor.peek());
        return Err(HclError::new(start, format!("number expected, `{text}` came; quote it if it is text")));
    }
    Ok(if float { Token::Float(text) } else { Token::Number(text) })
}

/// A string in quotes. Inside `${…}` everything stays as written, quotes and line ends too.
fn quoted(cursor: &mut Cursor<'_>) -> Result<String, HclError> {
    let start = cursor.pos();
    let unterminated = || HclError::new(start, "string not terminated");
    cursor.next();
    let mut out = String::new();
    loop {
        if cursor.take("${") {
            out.push_str("${");
            let mut depth = 1;
            while depth > 0 {
                let c = cursor.next().ok_or_else(unterminated)?;
                depth += i64::from(c == '{') - i64::from(c == '}');
                out.push(c);
            }
            continue;
        }
        match cursor.next() {
            None | Some('\n') => return Err(unterminated()),
            Some('"') => return Ok(out),
            Some('\\') => out.push(escape(cursor)?),
            Some(c) => out.push(c),
        }
    }
}

/// What follows a backslash, as in Go.
fn escape(cursor: &mut Cursor<'_>) -> Result<char, HclError> {
    let pos = cursor.pos();
    let unknown = || HclError::new(pos, "unknown escape sequence");
    let code = |cursor: &mut Cursor<'_>, digits: usize, radix: u32, start: u32| {
        let mut value = start;
        for _ in 0..digits {
            let digit = cursor.next().and_then(|c| c.to_digit(radix)).ok_or_else(unknown)?;
            value = value.saturating_mul(radix).saturating_add(digit);
        }
        char::from_u32(value).ok_or_else(unknown)
    };
    match cursor.next().ok_or_else(unknown)? {
        'a' => Ok('\u{7}'),
        'b' => Ok('\u{8}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\u{b}'),
        c @ ('\\' | '"') => Ok(c),
        c @ '0'..='7' => code(cursor, 2, 8, c.to_digit(8).unwrap_or_default()),
        'x' => code(cursor, 2, 16, 0),
        'u' => code(cursor, 4, 16, 0),
        'U' => code(cursor, 8, 16, 0),
        _ => Err(unknown()),
    }
}

/// Lines up to a marker. With `<<-` the indentation of the marker's line is taken off every line that all share it.
fn heredoc(cursor: &mut Cursor<'_>) -> Result<String, HclError> {
    let start = cursor.pos();
    if !cursor.take("<<") {
        return Err(cursor.error("character '<' is not allowed here; a heredoc begins with `<<`"));
    }
    let indented = cursor.take("-");
    let marker = cursor.line().unwrap_or_default();
    let marker = marker.trim_end_matches('\r');
    if marker.is_empty() || !marker.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(HclError::new(
            start,
            "heredoc without a marker; expected `<<NAME` and the end of the line",
        ));
    }
    let mut lines: Vec<String> = Vec::new();
    loop {
        // The marker ends the text; what follows it on the line, such as a comma, is read on.
        let mut ahead = cursor.clone();
        let indent = ahead.take_while(|c| matches!(c, ' ' | '\t'));
        if ahead.take(marker) && !ahead.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            *cursor = ahead;
            let strip = indented && lines.iter().all(|line| line.starts_with(&indent));
            let keep = |line: &String| {
                let line = if strip { line.get(indent.len()..).unwrap_or_default() } else { line };
                format!("{line}\n")
            };
            return Ok(lines.iter().map(keep).collect());
        }
        let line = cursor.line().ok_or_else(|| HclError::new(start, "heredoc not terminated"))?;
        lines.push(line);
    }
}
