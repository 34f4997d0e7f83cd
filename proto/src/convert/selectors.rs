//! Selectors and sets of them.
//!
//! Never drops a selector silently: one bad selector refuses the whole list.

use avouch_domain::{Selector, SelectorError, SelectorSet};

use super::ConvertError;
use crate::types;

/// A list with at least one selector, in the order given.
///
/// # Errors
/// SPIRE's words for an empty list or a bad half.
pub fn selectors(wire: &[types::Selector]) -> Result<Vec<Selector>, ConvertError> {
    if wire.is_empty() {
        return Err(ConvertError::unreadable(SelectorError::EmptyList));
    }
    wire.iter().map(selector).collect()
}

/// A set, which may be empty.
///
/// # Errors
/// A bad selector, or too many.
pub fn selector_set(wire: &[types::Selector]) -> Result<SelectorSet, ConvertError> {
    let list: Vec<_> = wire.iter().map(selector).collect::<Result<_, _>>()?;
    SelectorSet::new(list).map_err(ConvertError::not_allowed)
}

fn selector(wire: &types::Selector) -> Result<Selector, ConvertError> {
    Selector::new(&wire.r#type, &wire.value).map_err(ConvertError::unreadable)
}

/// In the order given.
#[must_use]
pub fn selectors_to_wire<'a>(list: impl IntoIterator<Item = &'a Selector>) -> Vec<types::Selector> {
    list.into_iter()
        .map(|s| types::Selector { r#type: s.kind().to_owned(), value: s.value().to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_list_is_refused_and_an_empty_set_is_not() {
        assert_eq!(selectors(&[]).unwrap_err().to_string(), "selector list is empty");
        assert!(selector_set(&[]).unwrap().is_empty());
    }

    #[test]
    fn each_bad_half_has_its_own_words() {
        let words = |kind: &str, value: &str| {
            let wire = types::Selector { r#type: kind.into(), value: value.into() };
            selectors(&[wire]).unwrap_err().to_string()
        };
        assert_eq!(words("", "v"), "missing selector type");
        assert_eq!(words("a:b", "v"), "selector type contains ':'");
        assert_eq!(words("a", ""), "missing selector value");
    }

    proptest! {
        #[test]
        fn every_selector_survives_the_wire(kind in "[^:]{1,9}", value in ".{1,20}") {
            let selector = Selector::new(&kind, &value).unwrap();
            prop_assert_eq!(selectors(&selectors_to_wire([&selector])), Ok(vec![selector]));
        }
    }
}
