//! JSON objects from strangers: no member may stand twice, since readers differ in which one they take.
//!
//! Never accepts anything but one object with nothing behind it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Reads one object; repeated members at its top level are an error. Nested depth is bounded by the JSON reader.
///
/// # Errors
/// It is none, or a member stands twice.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_slice::<Unique>(bytes).map(|unique| unique.0)
}

struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format_args!("member {name:?} stands twice")));
            }
            map.insert(name, access.next_value()?);
        }
        Ok(Unique(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_may_stand_only_once() {
        assert!(object(br#"{"a":1,"b":2}"#).is_ok());
        assert!(object(br#"{"a":1,"a":1}"#).unwrap_err().to_string().contains("stands twice"));
    }

    #[test]
    fn only_one_object_is_read() {
        for bad in ["[]", "null", "{} {}", "", "{\"a\":1,}"] {
            assert!(object(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
