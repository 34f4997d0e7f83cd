//! Reading a template: text, `{{ … }}` with optional trim marks, pipelines, calls, operands.
//!
//! Never: nothing is guessed; what is not understood is an error that quotes it.

use super::eval::FUNCTIONS;
use super::{Call, Operand, Piece, Pipeline, check_field};

/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Field(Vec<String>),
    Word(String),
    Text(String),
    Number(i64),
    Pipe,
    Open,
    Close,
}

/// Splits a template into its pieces.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, behind) = after.split_once("}}").ok_or_else(|| format!("no }}}} ends {after:?}"))?;
        let (inside, trim_before) = match inside.strip_prefix('-') {
            Some(inside) if inside.starts_with(char::is_whitespace) => (inside, true),
            _ => (inside, false),
        };
        let (inside, trim_after) = match inside.strip_suffix('-') {
            Some(inside) if inside.ends_with(char::is_whitespace) => (inside, true),
            _ => (inside, false),
        };
        push_text(&mut pieces, before, trim, trim_before);
        trim = trim_after;
        pieces.push(Piece::Action(action(inside)?));
        rest = behind;
    }
    push_text(&mut pieces, rest, trim, false);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

fn action(inside: &str) -> Result<Pipeline, String> {
    let tokens = tokens(inside)?;
    let mut rest = tokens.as_slice();
    let pipeline = pipeline(&mut rest, 0)?;
    if rest.is_empty() { Ok(pipeline) } else { Err(format!("a parenthesis too many in {inside:?}")) }
}

fn pipeline(rest: &mut &[Token], depth: usize) -> Result<Pipeline, String> {
    if depth > DEPTH_MAX {
        return Err(format!("parentheses are nested deeper than {DEPTH_MAX}"));
    }
    let mut calls = vec![call(rest, depth)?];
    while let [Token::Pipe, after @ ..] = rest {
        *rest = after;
        match call(rest, depth)? {
            Call::Value(_) => return Err("expected a function after |".to_owned()),
            function @ Call::Function { .. } => calls.push(function),
        }
    }
    Ok(calls)
}

fn call(rest: &mut &[Token], depth: usize) -> Result<Call, String> {
    if let [Token::Word(word), after @ ..] = rest {
        let name = *FUNCTIONS.iter().find(|f| *f == word).ok_or_else(|| {
            format!("there is no function {word:?} here; expected one of {}", FUNCTIONS.join(", "))
        })?;
        *rest = after;
        let mut arguments = Vec::new();
        while let Some(operand) = operand(rest, depth)? {
            arguments.push(operand);
        }
        return Ok(Call::Function { name, arguments });
    }
    let value = operand(rest, depth)?.ok_or("expected a field, a text or a function inside {{ }}")?;
    Ok(Call::Value(value))
}

fn operand(rest: &mut &[Token], depth: usize) -> Result<Option<Operand>, String> {
    let (operand, after) = match rest {
        [Token::Field(path), after @ ..] => {
            check_field(path)?;
            (Operand::Field(path.clone()), after)
        }
        [Token::Text(text), after @ ..] => (Operand::Text(text.clone()), after),
        [Token::Number(number), after @ ..] => (Operand::Number(*number), after),
        [Token::Open, inside @ ..] => {
            let mut inside = inside;
            let group = pipeline(&mut inside, depth + 1)?;
            let [Token::Close, after @ ..] = inside else {
                return Err("a parenthesis is not closed".to_owned());
            };
            (Operand::Group(group), after)
        }
        [Token::Word(word), ..] => return Err(format!("expected an operand, got {word:?}")),
        [Token::Pipe | Token::Close, ..] | [] => return Ok(None),
    };
    *rest = after;
    Ok(Some(operand))
}

fn tokens(inside: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = inside.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            '|' => (Token::Pipe, skip(rest, 1)),
            '(' => (Token::Open, skip(rest, 1)),
            ')' => (Token::Close, skip(rest, 1)),
            '"' | '`' => quoted(rest, first)?,
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "|()\"`".contains(c));
                let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
                (bare(word)?, after)
            }
        };
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn skip(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}

/// A text in quotes; in double quotes a backslash escapes a quote or a backslash.
fn quoted(rest: &str, quote: char) -> Result<(Token, &str), String> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Ok((Token::Text(text), skip(rest, at + 1))),
            '\\' if quote == '"' => match letters.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                other => return Err(format!("unknown escape \\{} in a text", other.map_or(' ', |o| o.1))),
            },
            _ => text.push(letter),
        }
    }
    Err(format!("no {quote} ends {rest}"))
}

fn bare(word: &str) -> Result<Token, String> {
    if let Some(path) = word.strip_prefix('.') {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        return match path.iter().any(String::is_empty) {
            true => Err(format!("{word:?} names no field")),
            false => Ok(Token::Field(path)),
        };
    }
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return word.parse().map(Token::Number).map_err(|_| format!("{word:?} is no number"));
    }
    Ok(Token::Word(word.to_owned()))
}
