//! JSON from strangers: no name may stand twice in one object, since readers differ in which value they take, and whoever looked
//! at the text before may have read another one.
//!
//! Never guesses which of the two was meant.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Longest piece of a doubled name in an error, in characters.
const SHOWN_MAX: usize = 64;

/// How strictly names in objects must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// As they are spelled.
    Exact,
    /// Also when upper and lower case do not count: there are readers that see no difference.
    Folded,
}

/// Reads one object, with nothing behind it.
///
/// # Errors
/// It is none, or a name stands twice, however deep.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match plain(bytes)? {
        Value::Object(map) => Ok(map),
        _ => Err(serde_json::Error::custom("expected a JSON object")),
    }
}

/// Reads what has this shape, also where it says more than is asked for.
///
/// # Errors
/// It is no JSON of that shape, or a name stands twice, however deep.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    plain(bytes)?;
    serde_json::from_slice(bytes)
}

/// Nested as deep as the JSON reader goes.
fn plain(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    bounded(bytes, usize::MAX, Names::Exact)
}

/// Reads one value, nested no deeper than this and with nothing behind it.
///
/// # Errors
/// It is no JSON, or goes deeper, or a name stands twice.
pub fn bounded(bytes: &[u8], depth: usize, names: Names) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node { depth, names }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// A name without the difference between upper and lower case, as the most lenient reader sees it.
#[must_use]
pub fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// One value, and how much deeper it may go.
#[derive(Clone, Copy)]
struct Node {
    depth: usize,
    names: Names,
}

impl Node {
    fn below<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("it is nested too deep"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(below)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let (mut map, mut seen) = (Map::new(), BTreeSet::new());
        while let Some(name) = object.next_key::<String>()? {
            let doubled = match self.names {
                Names::Exact => map.contains_key(&name),
                Names::Folded => !seen.insert(folded(&name)),
            };
            if doubled {
                let shown: String = name.chars().take(SHOWN_MAX).collect();
                return Err(A::Error::custom(format!("the name {shown:?} stands twice in one object")));
            }
            map.insert(name, object.next_value_seed(below)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_in_one_object_is_refused_however_deep_and_however_it_is_spelled() {
        for (text, name) in [
            (r#"{"a":1,"a":1}"#, r#""a""#),
            (r#"{"a":{"b":1,"c":2,"b":3}}"#, r#""b""#),
            (r#"{"a":[1,[{"b":null,"b":null}]]}"#, r#""b""#),
            (r#"{"id":"x","\u0069d":"y"}"#, r#""id""#),
            (r#"{"":1,"":2}"#, r#""""#),
        ] {
            let told = format!("the name {name} stands twice");
            let error = read::<Value>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&told), "{text}: {error}");
            let error = object(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&told), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_in_two_objects_is_no_name_twice() {
        let text = r#"{"a":{"A":-1,"a":1},"b":[{"a":0.5},{"a":true}],"c":[null,"a"]}"#;
        assert_eq!(read::<Value>(text.as_bytes()).unwrap().to_string(), text);
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()).to_string(), text);
    }

    #[test]
    fn only_one_object_is_read() {
        for bad in ["[]", "null", "{} {}", "", "{\"a\":1,}"] {
            assert!(object(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
