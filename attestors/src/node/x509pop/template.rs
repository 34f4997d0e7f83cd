//! Templates of agent paths, as SPIRE's: the part of Go's `text/template` that names a fact, picks from a list and
//! shapes a text.
//!
//! Never: a field or function that is not known is refused when the template is read, not when a node joins; a fact
//! that a certificate lacks is an error (unless `default` gives another), never a gap in an ID.

mod eval;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::settings::Trust;

/// A template that was read and names only what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Action(Pipeline),
}

/// Calls in turn, each with the value of the one before as its last argument.
type Pipeline = Vec<Call>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Value(Operand),
    Function { name: &'static str, arguments: Vec<Operand> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    /// `.Subject.CommonName`
    Field(Vec<String>),
    Text(String),
    Number(i64),
    Group(Pipeline),
}

/// What a template may name, and what functions work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
    Map(BTreeMap<String, Value>),
}

/// The facts of one certificate, by field.
pub(super) type Facts = BTreeMap<String, Value>;

/// Fields with one text.
const TEXTS: &[&str] =
    &["PluginName", "TrustDomain", "Fingerprint", "SerialNumberHex", "SerialNumber", "SVIDPathTrimmed"];
/// Fields with a list of texts.
const LISTS: &[&str] = &["DNSNames", "EmailAddresses"];
/// Fields that hold fields, and what those are.
const NAMES: &[&str] = &["Subject", "Issuer"];
/// Fields of a name with one text.
pub(super) const NAME_TEXTS: &[&str] = &["CommonName", "SerialNumber"];
/// Fields of a name with a list of texts.
pub(super) const NAME_LISTS: &[&str] =
    &["Country", "Organization", "OrganizationalUnit", "Locality", "Province", "StreetAddress", "PostalCode"];
/// The field whose members are the keys of `x509pop://` names.
const SELECTORS: &str = "URISanSelectors";

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A text that says what is not understood and what would be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = Self { pieces: parse::pieces(text)? };
        match template.pieces.first() {
            None => Err("is empty".to_owned()),
            Some(Piece::Text(text)) if !text.starts_with('/') => {
                Err(format!("begins with {text:?}, expected a slash"))
            }
            Some(_) => Ok(template),
        }
    }

    /// What SPIRE takes if none is configured.
    pub(super) fn default_of(trust: &Trust) -> Self {
        let last = match trust {
            Trust::Files(_) => "Fingerprint",
            Trust::OwnBundle { .. } => "SVIDPathTrimmed",
        };
        let field = |name: &str| Piece::Action(vec![Call::Value(Operand::Field(vec![name.to_owned()]))]);
        let slash = || Piece::Text("/".to_owned());
        Self { pieces: vec![slash(), field("PluginName"), slash(), field(last)] }
    }

    /// True if the template names this field.
    pub(super) fn names(&self, field: &str) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Text(_) => false,
            Piece::Action(pipeline) => pipeline_names(pipeline, field),
        })
    }

    /// The path for these facts.
    ///
    /// # Errors
    /// A text that names what the certificate lacks.
    pub(super) fn render(&self, facts: &Facts) -> Result<String, String> {
        let mut path = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Action(pipeline) => {
                    let text = eval::text(eval::pipeline(pipeline, facts)?)?;
                    if text.is_empty() {
                        return Err(format!("a part after {path:?} is empty for this certificate"));
                    }
                    path.push_str(&text);
                }
            }
        }
        Ok(path)
    }
}

fn pipeline_names(pipeline: &Pipeline, field: &str) -> bool {
    let operand = |o: &Operand| match o {
        Operand::Field(path) => path.first().is_some_and(|first| first == field),
        Operand::Group(inner) => pipeline_names(inner, field),
        Operand::Text(_) | Operand::Number(_) => false,
    };
    pipeline.iter().any(|call| match call {
        Call::Value(value) => operand(value),
        Call::Function { arguments, .. } => arguments.iter().any(operand),
    })
}

/// Says if there is such a field.
fn check_field(path: &[String]) -> Result<(), String> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let known = match path.as_slice() {
        [one] => TEXTS.contains(one) || LISTS.contains(one) || *one == SELECTORS,
        [SELECTORS, _] => true,
        [name, part] => NAMES.contains(name) && (NAME_TEXTS.contains(part) || NAME_LISTS.contains(part)),
        _ => false,
    };
    if known {
        return Ok(());
    }
    Err(format!(
        "there is no field .{}; expected one of .{}, .{}, .Subject.X or .Issuer.X (X = {}, {}), .{SELECTORS}.KEY",
        path.join("."),
        TEXTS.join(", ."),
        LISTS.join(", ."),
        NAME_TEXTS.join(", "),
        NAME_LISTS.join(", "),
    ))
}
