//! Distinguished names: built from text, or carried as the bytes another certificate has.
//!
//! Never re-encodes a name it was given: an issuer must be byte for byte the subject of its certificate.

use std::fmt;
use std::sync::Arc;

use crate::der::{self, DerError, OID, PRINTABLE_STRING, Reader, SEQUENCE, SET, UTF8_STRING};

/// The attributes that SPIRE's subjects may have, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    Country,
    Province,
    Locality,
    StreetAddress,
    PostalCode,
    Organization,
    OrganizationalUnit,
    CommonName,
    SerialNumber,
}

impl Attribute {
    const ALL: [Self; 9] = [
        Self::Country,
        Self::Province,
        Self::Locality,
        Self::StreetAddress,
        Self::PostalCode,
        Self::Organization,
        Self::OrganizationalUnit,
        Self::CommonName,
        Self::SerialNumber,
    ];

    /// Content of the OID 2.5.4.n.
    fn oid(self) -> [u8; 3] {
        let n = match self {
            Self::Country => 6,
            Self::Province => 8,
            Self::Locality => 7,
            Self::StreetAddress => 9,
            Self::PostalCode => 17,
            Self::Organization => 10,
            Self::OrganizationalUnit => 11,
            Self::CommonName => 3,
            Self::SerialNumber => 5,
        };
        [0x55, 0x04, n]
    }

    fn short(self) -> &'static str {
        match self {
            Self::Country => "C",
            Self::Province => "ST",
            Self::Locality => "L",
            Self::StreetAddress => "STREET",
            Self::PostalCode => "POSTALCODE",
            Self::Organization => "O",
            Self::OrganizationalUnit => "OU",
            Self::CommonName => "CN",
            Self::SerialNumber => "SERIALNUMBER",
        }
    }

    fn from_oid(oid: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.oid() == oid)
    }
}

/// Bytes that are no distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed distinguished name: {0}")]
pub struct NameError(String);

impl From<DerError> for NameError {
    fn from(e: DerError) -> Self {
        Self(e.to_string())
    }
}

/// A distinguished name as DER. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Builds a name from attributes in the order given; several values of one attribute share one set, as Go
    /// writes them. An attribute without values is left out.
    #[must_use]
    pub fn new(attributes: &[(Attribute, &[String])]) -> Self {
        let mut out = Vec::with_capacity(64);
        der::element(&mut out, SEQUENCE, |out| {
            for (attribute, values) in attributes {
                relative(out, *attribute, values);
            }
        });
        Self(out.into())
    }

    /// `C=US, O=SPIRE`: the subject of an SVID unless something else was asked for.
    #[must_use]
    pub fn svid_default() -> Self {
        Self::new(&[(Attribute::Country, &["US".into()]), (Attribute::Organization, &["SPIRE".into()])])
    }

    /// `C=US, O=SPIFFE`: the subject of a CA unless configured.
    #[must_use]
    pub fn ca_default() -> Self {
        Self::new(&[(Attribute::Country, &["US".into()]), (Attribute::Organization, &["SPIFFE".into()])])
    }

    /// Takes the bytes as they are after checking that they are a name with nothing behind it.
    ///
    /// # Errors
    /// [`NameError`] if they are not.
    pub fn from_der(bytes: &[u8]) -> Result<Self, NameError> {
        let mut sets = der::only(bytes, SEQUENCE)?.inside();
        while !sets.is_empty() {
            let mut values = sets.expect(SET)?.inside();
            if values.is_empty() {
                return Err(NameError("empty set".to_owned()));
            }
            while !values.is_empty() {
                let mut pair = values.expect(SEQUENCE)?.inside();
                pair.expect(OID)?;
                pair.any()?;
                pair.end()?;
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The DER bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets().is_empty()
    }

    /// The same name with exactly this common name.
    #[must_use]
    pub fn with_common_name(&self, common_name: &str) -> Self {
        let is =
            |set: &[u8], wanted| attributes_of(set).any(|(oid, _)| Attribute::from_oid(oid) == Some(wanted));
        let mut added = Vec::new();
        relative(&mut added, Attribute::CommonName, &[common_name.to_owned()]);
        let kept: Vec<_> = self.sets().into_iter().filter(|set| !is(set, Attribute::CommonName)).collect();
        let at = kept.iter().position(|set| is(set, Attribute::SerialNumber)).unwrap_or(kept.len());
        Self::of_sets(
            kept.iter().take(at).copied().chain([added.as_slice()]).chain(kept.iter().skip(at).copied()),
        )
    }

    /// The same name with this serialNumber at its end, unless it has one.
    #[must_use]
    pub fn with_serial_number(&self, serial_number: &str) -> Self {
        let sets = self.sets();
        if sets
            .iter()
            .flat_map(|set| attributes_of(set))
            .any(|(oid, _)| Attribute::from_oid(oid) == Some(Attribute::SerialNumber))
        {
            return self.clone();
        }
        let mut added = Vec::new();
        relative(&mut added, Attribute::SerialNumber, &[serial_number.to_owned()]);
        Self::of_sets(sets.into_iter().chain([added.as_slice()]))
    }

    /// The text Go prints: last set first, such as `O=SPIRE,C=US`.
    #[must_use]
    pub fn text(&self) -> String {
        let sets = self.sets();
        let texts = sets.iter().rev().map(|set| {
            attributes_of(set).map(|(oid, value)| attribute_text(oid, value)).collect::<Vec<_>>().join("+")
        });
        texts.collect::<Vec<_>>().join(",")
    }

    /// The first common name, if it is text.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        self.sets()
            .iter()
            .flat_map(|set| attributes_of(set))
            .find(|(oid, _)| Attribute::from_oid(oid) == Some(Attribute::CommonName))
            .and_then(|(_, value)| std::str::from_utf8(value.content).ok().map(str::to_owned))
    }

    fn of_sets<'a>(sets: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut out = Vec::with_capacity(128);
        der::element(&mut out, SEQUENCE, |out| sets.for_each(|set| out.extend_from_slice(set)));
        Self(out.into())
    }

    /// The bytes of each SET.
    fn sets(&self) -> Vec<&[u8]> {
        der::only(&self.0, SEQUENCE)
            .map(|e| elements(e.inside()).map(|s| s.raw).collect())
            .unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

fn elements(mut reader: Reader<'_>) -> impl Iterator<Item = der::Element<'_>> {
    std::iter::from_fn(move || reader.any().ok())
}

/// OID content and value of each attribute in a SET that was checked at birth.
fn attributes_of(set: &[u8]) -> impl Iterator<Item = (&[u8], der::Element<'_>)> {
    let inside = Reader::new(set).any().map_or(Reader::new(&[]), der::Element::inside);
    elements(inside).filter_map(|pair| {
        let mut pair = pair.inside();
        Some((pair.any().ok()?.content, pair.any().ok()?))
    })
}

fn relative(out: &mut Vec<u8>, attribute: Attribute, values: &[String]) {
    if values.is_empty() {
        return;
    }
    let mut pairs: Vec<Vec<u8>> = values
        .iter()
        .map(|value| {
            let mut pair = Vec::with_capacity(value.len() + 12);
            der::element(&mut pair, SEQUENCE, |out| {
                der::primitive(out, OID, &attribute.oid());
                der::primitive(out, string_tag(value), value.as_bytes());
            });
            pair
        })
        .collect();
    pairs.sort_unstable(); // DER wants the elements of a set in order
    pairs.dedup();
    der::element(out, SET, |out| pairs.iter().for_each(|pair| out.extend_from_slice(pair)));
}

/// PrintableString where the text allows it, else UTF8String.
fn string_tag(text: &str) -> u8 {
    let printable = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b' ' | b'\'' | b'('..=b')' | b'+'..=b'/' | b':' | b'=' | b'?')
    };
    if text.bytes().all(printable) { PRINTABLE_STRING } else { UTF8_STRING }
}

fn attribute_text(oid: &[u8], value: der::Element<'_>) -> String {
    match (Attribute::from_oid(oid), std::str::from_utf8(value.content)) {
        (Some(attribute), Ok(text)) => format!("{}={}", attribute.short(), escaped(text)),
        _ => format!("{}=#{}", dotted(oid), hex::encode(value.raw)),
    }
}

/// RFC 2253 escaping.
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || c == ' ' && (at == 0 || at == last)
            || c == '#' && at == 0;
        if special {
            out.push('\\');
        }
        if c == '\0' { out.push_str("\\00") } else { out.push(c) }
    }
    out
}

fn dotted(oid: &[u8]) -> String {
    let mut arcs = Vec::new();
    let mut arc = 0_u64;
    for byte in oid {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.push(first);
                arc -= first * 40;
            }
            arcs.push(arc);
            arc = 0;
        }
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(list: &[(Attribute, &[&str])]) -> Name {
        let owned: Vec<(Attribute, Vec<String>)> =
            list.iter().map(|(a, v)| (*a, v.iter().map(|s| (*s).to_owned()).collect())).collect();
        Name::new(&owned.iter().map(|(a, v)| (*a, v.as_slice())).collect::<Vec<_>>())
    }

    #[test]
    fn the_text_begins_with_the_last_attribute() {
        assert_eq!(Name::svid_default().text(), "O=SPIRE,C=US");
        assert_eq!(Name::ca_default().with_serial_number("68").text(), "SERIALNUMBER=68,O=SPIFFE,C=US");
    }

    #[test]
    fn repeated_attributes_are_all_kept() {
        let name = name(&[(Attribute::Organization, &["b", "a"])]);
        assert_eq!(name.text(), "O=a+O=b");
        assert_eq!(Name::from_der(name.der()), Ok(name));
    }

    #[test]
    fn text_outside_the_printable_alphabet_is_utf8() {
        for (text, tag) in [
            ("My CA", PRINTABLE_STRING),
            ("*.example.org", UTF8_STRING),
            ("a_b", UTF8_STRING),
            ("é", UTF8_STRING),
        ] {
            assert_eq!(string_tag(text), tag, "{text}");
        }
    }

    #[test]
    fn a_common_name_replaces_the_one_before_and_stands_before_the_serial_number() {
        let before = name(&[(Attribute::CommonName, &["old"]), (Attribute::SerialNumber, &["1"])]);
        assert_eq!(before.with_common_name("new").text(), "SERIALNUMBER=1,CN=new");
        assert_eq!(Name::svid_default().with_common_name("x").text(), "CN=x,O=SPIRE,C=US");
    }

    #[test]
    fn a_serial_number_that_is_there_stays() {
        let before = name(&[(Attribute::SerialNumber, &["1"])]);
        assert_eq!(before.with_serial_number("2"), before);
    }

    #[test]
    fn special_characters_are_escaped_in_the_text() {
        assert_eq!(name(&[(Attribute::CommonName, &["#a,b "])]).text(), "CN=\\#a\\,b\\ ");
    }

    #[test]
    fn unknown_attributes_print_as_oid_and_hex() {
        let der = [0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x2d, 0x0c, 0x01, b'x'];
        assert_eq!(Name::from_der(&der).unwrap().text(), "2.5.4.45=#0c0178");
    }

    #[test]
    fn a_set_without_attributes_is_no_name() {
        assert!(Name::from_der(&[0x30, 0x02, 0x31, 0x00]).is_err());
    }
}
