//! Limits that an allowed request is held to: read from `@limit("max_rows=1000;fields=ts,level;read_only")`, merged to
//! the strictest.
//!
//! Never widens: merging two gives at most what each of them gives, in whatever order.

use std::collections::BTreeSet;
use std::fmt;

use crate::limits::LIMIT_FIELDS_MAX;

/// What a gate must hold an allowed request to. A gate that can't refuses the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most rows of the answer.
    pub max_rows: Option<u64>,
    /// Most bytes of the answer.
    pub max_bytes: Option<u64>,
    /// The fields that may be shown; none of them when empty.
    pub fields: Option<BTreeSet<String>>,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Seconds after which what was given ends.
    pub ttl: Option<u64>,
}

impl Limits {
    /// Reads the text of a `@limit`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for part in text.split(';').map(str::trim) {
            let (key, value) = part.split_once('=').map_or((part, None), |(k, v)| (k.trim(), Some(v.trim())));
            let before = limits.clone();
            match (key, value) {
                ("max_rows", Some(value)) => limits.max_rows = Some(number(key, value)?),
                ("max_bytes", Some(value)) => limits.max_bytes = Some(number(key, value)?),
                ("ttl", Some(value)) => limits.ttl = Some(number(key, value)?),
                ("fields", Some(value)) => limits.fields = Some(fields(value)?),
                ("read_only", None) => limits.read_only = true,
                ("read_only", Some(_)) => return Err("\"read_only\" takes no value".to_owned()),
                ("max_rows" | "max_bytes" | "ttl" | "fields", None) => {
                    return Err(format!("\"{key}\" needs a value, as in \"{key}=...\""));
                }
                _ => {
                    return Err(format!(
                        "unknown limit \"{key}\", expected max_rows, max_bytes, fields, read_only, ttl"
                    ));
                }
            }
            // Whatever is set a second time leaves the same or another value behind, never a new field.
            if before.count() == limits.count() {
                return Err(format!("\"{key}\" stands twice"));
            }
        }
        Ok(limits)
    }

    /// What holds where each of these holds, if it is there.
    #[must_use]
    pub fn join(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.merge(other)),
            (one, other) => one.or(other),
        }
    }

    /// Both at once: the smaller number, the fields of both, read-only if one says so.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let fields = match (self.fields, other.fields) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (a, b) => a.or(b),
        };
        Self {
            max_rows: least(self.max_rows, other.max_rows),
            max_bytes: least(self.max_bytes, other.max_bytes),
            fields,
            read_only: self.read_only || other.read_only,
            ttl: least(self.ttl, other.ttl),
        }
    }

    fn count(&self) -> usize {
        let flags = [
            self.max_rows.is_some(),
            self.max_bytes.is_some(),
            self.fields.is_some(),
            self.read_only,
            self.ttl.is_some(),
        ];
        flags.into_iter().filter(|set| *set).count()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |key: &str, value: Option<u64>| value.map(|v| format!("{key}={v}"));
        let fields = self.fields.as_ref();
        let parts = [
            number("max_rows", self.max_rows),
            number("max_bytes", self.max_bytes),
            fields.map(|f| format!("fields={}", f.iter().map(String::as_str).collect::<Vec<_>>().join(","))),
            self.read_only.then(|| "read_only".to_owned()),
            number("ttl", self.ttl),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(";"))
    }
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn number(key: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("\"{key}\" needs a whole number, not \"{value}\""))
}

fn fields(value: &str) -> Result<BTreeSet<String>, String> {
    let fields: BTreeSet<String> = value.split(',').map(|f| f.trim().to_owned()).collect();
    if fields.contains("") || fields.len() > LIMIT_FIELDS_MAX {
        return Err(format!("\"fields\" needs 1 to {LIMIT_FIELDS_MAX} names between commas"));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_are_read_and_shown_alike() {
        let text = "max_rows=1000;fields=level,ts;read_only;ttl=900";
        assert_eq!(Limits::parse(text).unwrap().to_string(), text);
        assert_eq!(
            Limits::parse(" read_only ; max_bytes = 5 ").unwrap().to_string(),
            "max_bytes=5;read_only"
        );
    }

    #[test]
    fn what_is_unknown_doubled_or_without_its_value_is_refused() {
        for (text, why) in [
            ("rows=1", "unknown limit \"rows\""),
            ("", "unknown limit \"\""),
            ("max_rows=1;max_rows=1", "\"max_rows\" stands twice"),
            ("max_rows", "needs a value"),
            ("max_rows=-1", "needs a whole number, not \"-1\""),
            ("read_only=no", "takes no value"),
            ("fields=a,,b", "between commas"),
        ] {
            let error = Limits::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        let number = || proptest::option::of(0..5_u64);
        let fields = proptest::option::of(proptest::collection::btree_set("[a-d]", 0..4));
        (number(), number(), fields, any::<bool>(), number()).prop_map(
            |(max_rows, max_bytes, fields, read_only, ttl)| Limits {
                max_rows,
                max_bytes,
                fields,
                read_only,
                ttl,
            },
        )
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_never_widens(
            a in any_limits(), b in any_limits(), c in any_limits()
        ) {
            let ab = a.clone().merge(b.clone());
            prop_assert_eq!(&ab, &b.clone().merge(a.clone()));
            prop_assert_eq!(ab.clone().merge(c.clone()), a.clone().merge(b.clone().merge(c)));
            prop_assert_eq!(&a, &a.clone().merge(a.clone()));
            prop_assert!(ab.max_rows.unwrap_or(u64::MAX) <= a.max_rows.unwrap_or(u64::MAX));
            prop_assert!(ab.ttl.unwrap_or(u64::MAX) <= b.ttl.unwrap_or(u64::MAX));
            prop_assert!(ab.read_only || !a.read_only);
            if let (Some(merged), Some(before)) = (&ab.fields, &a.fields) {
                prop_assert!(merged.is_subset(before));
            }
        }
    }
}
