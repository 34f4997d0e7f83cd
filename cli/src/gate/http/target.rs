//! The path and the query of a request, in one reading only.
//!
//! Whatever two readers could read differently is refused: what is decoded here is what is decided, and what is written
//! again from it is what the upstream sees. Never passes on bytes that it did not write itself.

use avouch_rules::Path;
use avouch_rules::limits::ROUTE_PARTS_MAX;

use crate::gate::limits::{HTTP_QUERY_MAX, HTTP_TARGET_MAX};

/// A path and a query, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub path: Path,
    pub query: Vec<Pair>,
}

/// One query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    /// `None` without a `=`.
    pub value: Option<String>,
}

/// Reads what stands in a request's first line.
///
/// # Errors
/// One sentence on what is wrong with it.
pub fn read(raw: &str) -> Result<Target, String> {
    if raw.len() > HTTP_TARGET_MAX {
        return Err(format!("path and query have {} bytes, at most {HTTP_TARGET_MAX}", raw.len()));
    }
    let (path, query) = raw.split_once('?').map_or((raw, None), |(path, query)| (path, Some(query)));
    let inside = path.strip_prefix('/').ok_or("the path does not begin with /")?;
    let mut words: Vec<_> = inside.split('/').collect();
    let slash = words.last().is_some_and(|last| last.is_empty());
    if slash {
        words.pop();
    }
    if words.len() > ROUTE_PARTS_MAX {
        return Err(format!("the path has {} parts, at most {ROUTE_PARTS_MAX}", words.len()));
    }
    let segments = words.into_iter().map(segment).collect::<Result<_, _>>()?;
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(pair).collect::<Result<Vec<_>, _>>()?;
    if query.len() > HTTP_QUERY_MAX {
        return Err(format!("the query has {} parameters, at most {HTTP_QUERY_MAX}", query.len()));
    }
    Ok(Target { path: Path { segments, slash }, query })
}

fn segment(raw: &str) -> Result<String, String> {
    if raw.is_empty() {
        return Err("the path has two slashes in a row".to_owned());
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@%".contains(&c);
    if !raw.bytes().all(plain) {
        return Err(
            "the path has a character that stands there only percent-encoded, or not at all".to_owned()
        );
    }
    let text = decoded(raw).ok_or("the path has a percent sign without two digits, or is not UTF-8")?;
    // Servers differ about each of these, before or after they decode.
    if text == "." || text == ".." {
        return Err("the path has a dot segment".to_owned());
    }
    if text.chars().any(|c| c.is_control() || "/\\%?#;".contains(c)) {
        return Err(
            "the path has an encoded slash, percent sign, question mark or control character".to_owned()
        );
    }
    Ok(text)
}

fn pair(raw: &str) -> Result<Pair, String> {
    if !raw.bytes().all(|c| c.is_ascii_graphic() && c != b'#') {
        return Err("the query has a character that stands there only percent-encoded".to_owned());
    }
    let text = |raw: &str| {
        let text = decoded(&raw.replace('+', " "));
        let text = text.filter(|text| !text.chars().any(char::is_control));
        text.ok_or("the query has a percent sign without two digits, or is not plain text in UTF-8")
    };
    let (name, value) = raw.split_once('=').map_or((raw, None), |(name, value)| (name, Some(value)));
    let pair = Pair { name: text(name)?, value: value.map(text).transpose()? };
    if pair.name.is_empty() { Err("the query has a parameter without a name".to_owned()) } else { Ok(pair) }
}

/// Undoes percent-encoding once; `None` for what is no encoding of text.
fn decoded(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let ([high, low], after) = rest.split_first_chunk()?;
        let digit = |c: u8| char::from(c).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

impl Target {
    /// Path and query in the one form in which they go on.
    #[must_use]
    pub fn written(&self) -> String {
        let mut text = String::new();
        for segment in &self.path.segments {
            text.push('/');
            encode(segment, b"-._~!$&'()*+,=:@", &mut text);
        }
        if self.path.slash {
            text.push('/');
        }
        for (n, Pair { name, value }) in self.query.iter().enumerate() {
            text.push(if n == 0 { '?' } else { '&' });
            encode(name, b"-._~", &mut text);
            if let Some(value) = value {
                text.push('=');
                encode(value, b"-._~/:@,", &mut text);
            }
        }
        text
    }
}

fn encode(text: &str, plain: &[u8], to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            to.push(char::from(byte));
        } else {
            to.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_written_in_one_form() {
        for (raw, written) in [
            ("/", "/"),
            ("/tickets/7", "/tickets/7"),
            ("/tickets/", "/tickets/"),
            ("/a%2db/%7euser", "/a-b/~user"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/x?", "/x"),
            ("/x?a=1&&b", "/x?a=1&b"),
            ("/x?q=a+b%2Bc", "/x?q=a%20b%2Bc"),
            ("/x?q=%26%3D", "/x?q=%26%3D"),
            ("/x?tags[]=1", "/x?tags%5B%5D=1"),
            ("/x?a=b=c", "/x?a=b%3Dc"),
        ] {
            assert_eq!(read(raw).unwrap().written(), written, "{raw}");
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        for raw in [
            "",
            "*",
            "tickets",
            "http://other.example.org/",
            "//",
            "/a//b",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e%2e/b",
            "/.%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0ab",
            "/a%252fb",
            "/a%25",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%+1",
            "/a%ff",
            "/a;b",
            "/..;/b",
            "/a%3bb",
            "/a%3fb",
            "/a%23",
            "/a#b",
            "/a{b}",
            "/a b",
            "/caf\u{e9}",
            "/a\u{0}",
            "/a\"b",
            "/x?a=%",
            "/x?a=%00",
            "/x?=1",
            "/x?a#b",
            "/x?a=\u{e9}",
            "/x?a=%ff",
            "/x?a b",
        ] {
            assert!(read(raw).is_err(), "{raw}");
        }
        assert!(read(&"/a".repeat(ROUTE_PARTS_MAX + 1)).unwrap_err().contains("parts"));
        assert!(read(&format!("/x?{}", "a&".repeat(HTTP_QUERY_MAX + 1))).unwrap_err().contains("parameters"));
        assert!(read(&format!("/{}", "a".repeat(HTTP_TARGET_MAX))).unwrap_err().contains("bytes"));
    }
}
