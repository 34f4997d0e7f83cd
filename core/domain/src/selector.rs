//! Selectors: attested facts `type:value` about a process or a node.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{SELECTOR_MAX, SELECTORS_MAX};

/// How selectors about supplementary groups begin.
const OF_GROUPS: &str = "unix:supplementary_";

/// One attested fact. The type holds no colon; the value is not empty and may hold colons.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    text: Arc<str>,
    colon: u16,
}

/// Why a selector or a set of them is not valid. Messages are SPIRE's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("missing selector type")]
    MissingType,
    #[error("selector type contains ':'")]
    TypeWithColon,
    #[error("missing selector value")]
    MissingValue,
    #[error("selector \"{0}\" must be formatted as type:value")]
    NoColon(String),
    #[error("selector has {0} bytes, expected at most 4096")]
    TooLong(usize),
    #[error("selector list is empty")]
    EmptyList,
    #[error("{0} selectors given, expected at most 1024")]
    TooMany(usize),
}

impl Selector {
    /// Builds a selector of its two halves.
    ///
    /// # Errors
    /// [`SelectorError`] for an empty half, a colon in the type, or too many bytes.
    pub fn new(kind: &str, value: &str) -> Result<Self, SelectorError> {
        if kind.is_empty() {
            return Err(SelectorError::MissingType);
        }
        if kind.contains(':') {
            return Err(SelectorError::TypeWithColon);
        }
        if value.is_empty() {
            return Err(SelectorError::MissingValue);
        }
        let len = kind.len() + 1 + value.len();
        if len > SELECTOR_MAX {
            return Err(SelectorError::TooLong(len));
        }
        let colon = u16::try_from(kind.len()).map_err(|_| SelectorError::TooLong(len))?;
        Ok(Self { text: format!("{kind}:{value}").into(), colon })
    }

    /// The type, such as `unix`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text.get(..usize::from(self.colon)).unwrap_or_default()
    }

    /// The value, such as `uid:1000`.
    #[must_use]
    pub fn value(&self) -> &str {
        self.text.get(usize::from(self.colon) + 1..).unwrap_or_default()
    }

    /// Both halves joined by a colon.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if it is about supplementary groups: to see whether a process still has them costs more than all other
    /// facts about it together.
    #[must_use]
    pub fn is_of_groups(&self) -> bool {
        self.text.starts_with(OF_GROUPS)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(s: &str) -> Result<Self, SelectorError> {
        let (kind, value) = s.split_once(':').ok_or_else(|| SelectorError::NoColon(s.to_owned()))?;
        Self::new(kind, value)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A sorted set of selectors without duplicates; may be empty. Cheap to clone and to compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectorSet(Arc<[Selector]>);

impl SelectorSet {
    /// Sorts and de-duplicates.
    ///
    /// # Errors
    /// [`SelectorError::TooMany`] over the named limit.
    pub fn new(selectors: impl IntoIterator<Item = Selector>) -> Result<Self, SelectorError> {
        let mut list: Vec<_> = selectors.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        if list.len() > SELECTORS_MAX {
            return Err(SelectorError::TooMany(list.len()));
        }
        Ok(Self(list.into()))
    }

    #[must_use]
    pub fn as_slice(&self) -> &[Selector] {
        &self.0
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Selector> {
        self.0.iter()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn contains(&self, selector: &Selector) -> bool {
        self.0.binary_search(selector).is_ok()
    }

    /// True if every selector of `self` is in `other`: the entry rule, with `self` the entry's set.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        let mut theirs = other.0.iter();
        self.0.iter().all(|mine| theirs.by_ref().find(|t| *t >= mine) == Some(mine))
    }
}

impl<'a> IntoIterator for &'a SelectorSet {
    type Item = &'a Selector;
    type IntoIter = std::slice::Iter<'a, Selector>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[&str]) -> SelectorSet {
        SelectorSet::new(list.iter().map(|s| s.parse().unwrap())).unwrap()
    }

    #[test]
    fn a_value_may_hold_colons_and_a_type_may_not() {
        let s: Selector = "unix:path:/bin/a:b".parse().unwrap();
        assert_eq!((s.kind(), s.value()), ("unix", "path:/bin/a:b"));
        assert_eq!(Selector::new("a:b", "c"), Err(SelectorError::TypeWithColon));
    }

    #[test]
    fn only_supplementary_groups_are_dear_to_look_at() {
        let dear = |text: &str| text.parse::<Selector>().unwrap().is_of_groups();
        assert!(dear("unix:supplementary_gid:7") && dear("unix:supplementary_group:wheel"));
        assert!(
            !dear("unix:gid:7") && !dear("unix:group:supplementary_gid") && !dear("k8s:supplementary_gid:7")
        );
    }

    #[test]
    fn both_halves_are_required() {
        assert_eq!(Selector::new("", "v"), Err(SelectorError::MissingType));
        assert_eq!(Selector::new("t", ""), Err(SelectorError::MissingValue));
        assert_eq!("plain".parse::<Selector>(), Err(SelectorError::NoColon("plain".into())));
    }

    #[test]
    fn subset_ignores_order_and_repeats() {
        assert!(set(&["a:1", "b:2"]).is_subset_of(&set(&["c:3", "b:2", "a:1", "a:1"])));
        assert!(!set(&["a:1", "b:2"]).is_subset_of(&set(&["a:1", "c:3"])));
        assert!(set(&[]).is_subset_of(&set(&[])));
    }
}
