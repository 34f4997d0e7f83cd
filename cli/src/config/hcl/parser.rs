//! Tokens of HCL 1 to items.

use super::lexer::{self, Cursor, Token};
use super::{HclError, Item, Key, Node, Object, Pos, Value};
use crate::config::limits::DEPTH_MAX;

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Object, HclError> {
    let mut cursor = Cursor::new(text);
    let (token, pos) = lexer::next(&mut cursor)?;
    let mut parser = Parser { cursor, token, pos, depth: 0 };
    let root = parser.items()?;
    match parser.token {
        Token::End => Ok(root),
        _ => Err(parser.expected("a key")),
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    token: Token,
    pos: Pos,
    depth: usize,
}

impl Parser<'_> {
    /// Items up to a closing brace or the end. Commas between them are allowed, as are several on one line.
    fn items(&mut self) -> Result<Object, HclError> {
        let mut object = Object::default();
        while matches!(self.token, Token::Word(_) | Token::Text(_)) {
            object.items.push(self.item()?);
            if self.token == Token::Mark(',') {
                self.advance()?;
            }
        }
        Ok(object)
    }

    /// `key = value`, `key { … }` or `key "label" … { … }`.
    fn item(&mut self) -> Result<Item, HclError> {
        let mut keys = Vec::new();
        while let Token::Word(text) | Token::Text(text) = &self.token {
            keys.push(Key { text: text.clone(), pos: self.pos });
            self.advance()?;
        }
        let value = match &self.token {
            Token::Mark('=') if keys.len() == 1 => {
                self.advance()?;
                self.value()?
            }
            Token::Mark('{') => self.value()?,
            _ if keys.len() == 1 => return Err(self.expected("`=` or `{`")),
            _ => return Err(self.expected("`{`")),
        };
        self.nest(keys, value)
    }

    /// Puts a value below its labels, the last one innermost.
    fn nest(&self, mut keys: Vec<Key>, mut value: Node) -> Result<Item, HclError> {
        if keys.len() + self.depth > DEPTH_MAX {
            return Err(self.too_deep());
        }
        loop {
            let Some(key) = keys.pop() else { return Err(self.expected("a key")) };
            let pos = value.pos;
            let item = Item { key, value };
            if keys.is_empty() {
                return Ok(item);
            }
            value = Node { value: Value::Object(Object { items: vec![item] }), pos };
        }
    }

    fn value(&mut self) -> Result<Node, HclError> {
        let pos = self.pos;
        let value = match &self.token {
            Token::Word(word) if word == "true" => Value::Bool(true),
            Token::Word(word) if word == "false" => Value::Bool(false),
            Token::Text(text) => Value::Text(text.clone()),
            Token::Number(text) => Value::Number(text.clone()),
            Token::Float(text) => Value::Float(text.clone()),
            Token::Mark('{') => return self.nested(|p| p.object()).map(|value| Node { value, pos }),
            Token::Mark('[') => return self.nested(|p| p.list()).map(|value| Node { value, pos }),
            _ => return Err(self.expected("a value")),
        };
        self.advance()?;
        Ok(Node { value, pos })
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Value, HclError>) -> Result<Value, HclError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.too_deep());
        }
        self.depth += 1;
        self.advance()?;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, HclError> {
        let object = self.items()?;
        self.close('}', "a key or `}`")?;
        Ok(Value::Object(object))
    }

    fn list(&mut self) -> Result<Value, HclError> {
        let mut list = Vec::new();
        while self.token != Token::Mark(']') {
            list.push(self.value()?);
            if self.token == Token::Mark(',') {
                self.advance()?;
            } else {
                break;
            }
        }
        self.close(']', "`,` or `]`")?;
        Ok(Value::List(list))
    }

    fn close(&mut self, mark: char, wanted: &str) -> Result<(), HclError> {
        if self.token != Token::Mark(mark) {
            return Err(self.expected(wanted));
        }
        self.advance()
    }

    fn advance(&mut self) -> Result<(), HclError> {
        (self.token, self.pos) = lexer::next(&mut self.cursor)?;
        Ok(())
    }

    fn expected(&self, wanted: &str) -> HclError {
        HclError::new(self.pos, format!("expected {wanted}, found {}", self.token.name()))
    }

    fn too_deep(&self) -> HclError {
        HclError::new(self.pos, format!("nested more than {DEPTH_MAX} levels"))
    }
}
