//! Text that lies in the value itself as long as it is short.
//!
//! Who walks ten thousand entries to tell their IDs does not follow a pointer for each, nor ask for memory to pass one
//! on. Never changes what it was made of.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A text, kept in place up to [`ShortText::IN_PLACE`] bytes. Ordered and compared byte by byte.
#[derive(Clone)]
pub struct ShortText(Kept);

#[derive(Clone)]
enum Kept {
    Here(InPlace),
    There(Arc<str>),
}

/// A text of a [`ShortText`] that is kept in place: plain bytes, copied without a thought.
#[derive(Clone, Copy)]
pub struct InPlace {
    len: u8,
    bytes: [u8; ShortText::IN_PLACE],
}

impl InPlace {
    fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; ShortText::IN_PLACE];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { len: u8::try_from(text.len()).ok()?, bytes })
    }

    /// The bytes of the text, without a look at them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl From<InPlace> for ShortText {
    fn from(text: InPlace) -> Self {
        Self(Kept::Here(text))
    }
}

impl ShortText {
    /// Longest text kept in place: a UUID's 36 bytes, and what fills the word.
    pub const IN_PLACE: usize = 38;

    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(InPlace::new(text).map_or_else(|| Kept::There(text.into()), Kept::Here))
    }

    /// The text, if it is kept in place.
    #[must_use]
    pub fn in_place(&self) -> Option<InPlace> {
        match &self.0 {
            Kept::Here(text) => Some(*text),
            Kept::There(_) => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Only whole texts get in.
            Kept::Here(text) => std::str::from_utf8(text.as_bytes()).unwrap_or_default(),
            Kept::There(text) => text,
        }
    }

    /// The bytes of the text, without a look at them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kept::Here(text) => text.as_bytes(),
            Kept::There(text) => text.as_bytes(),
        }
    }
}

impl Default for ShortText {
    fn default() -> Self {
        Self::new("")
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ShortText {}

impl Ord for ShortText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for ShortText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for ShortText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_and_script_comes_back_as_it_was() {
        for text in ["", "e1", "né", &"a".repeat(38), &"a".repeat(39), &"é".repeat(19), &"é".repeat(20)] {
            assert_eq!(ShortText::new(text).as_str(), text);
            assert_eq!(ShortText::new(text).as_bytes(), text.as_bytes());
            let in_place = ShortText::new(text).in_place();
            assert_eq!(in_place.is_some(), text.len() <= ShortText::IN_PLACE);
            assert!(in_place.is_none_or(|short| ShortText::from(short).as_str() == text));
        }
    }

    #[test]
    fn texts_in_place_and_elsewhere_have_one_order() {
        let (long, longer) = ("b".repeat(40), "b".repeat(41));
        let mut texts = ["c", &longer, "a", &long, ""].map(ShortText::new);
        texts.sort();
        assert_eq!(texts.each_ref().map(ShortText::as_str), ["", "a", &long, &longer, "c"]);
    }

    #[test]
    fn a_value_is_five_words() {
        assert_eq!((size_of::<ShortText>(), size_of::<Option<InPlace>>()), (40, 40));
    }
}
