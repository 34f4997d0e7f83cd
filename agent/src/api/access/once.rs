//! JSON in which no name stands twice in one object: of two values readers take one or the other, so whoever looked at the text
//! before may have read another question than is decided here.
//!
//! Never: a guess which of the two was meant.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads a body, also where it says more than is asked for.
///
/// # Errors
/// It is no JSON of that shape, or a name stands twice.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice::<Once>(body)?;
    serde_json::from_slice(body)
}

/// A value of which only that is known.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = object.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!("the name {name:?} stands twice in one object")));
            }
            names.insert(name);
            object.next_value::<Self>()?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_name_that_stands_twice_in_one_object_is_refused_however_deep_and_however_it_is_spelled() {
        for (text, name) in [
            (r#"{"a":1,"a":1}"#, r#""a""#),
            (r#"{"a":{"b":1,"c":2,"b":3}}"#, r#""b""#),
            (r#"[1,[{"b":null,"b":null}]]"#, r#""b""#),
            (r#"{"id":"x","\u0069d":"y"}"#, r#""id""#),
            (r#"{"":1,"":2}"#, r#""""#),
        ] {
            let error = read::<Value>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("the name {name} stands twice")), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_in_two_objects_is_no_name_twice() {
        let text = r#"{"a":{"a":1,"A":-1},"b":[{"a":0.5},{"a":true}],"c":[null,"a"]}"#;
        assert_eq!(read::<Value>(text.as_bytes()).unwrap().to_string(), text);
    }
}
